"""From aligned examples to training batches. The only home of seqio and TensorFlow.

| module               | what                                                        | TensorFlow |
|----------------------|-------------------------------------------------------------|------------|
| `aligning`           | teacher records to aligned examples, a part at a time       | no         |
| `beam_pipeline`      | the same parts on Apache Beam                               | no         |
| `exporters`          | aligned examples in other trainers' fields                  | no         |
| `formats`            | the four formats as pure string functions                   | no         |
| `corpus`             | aligned folders in memory, split by question                | no         |
| `windowed`           | which examples share a row                                  | no         |
| `packing`            | several examples in one row                                 | no         |
| `packed`             | packed rows on disk, read by index                          | no         |
| `tfds_rows`          | public sets from TensorFlow Datasets, when they are read    | no         |
| `question_tasks`     | questions as seqio tasks with a metric                      | yes        |
| `vocabulary`         | a vocabulary whose file is known later than the tasks       | yes        |
| `sources`            | aligned folders as a seqio data source                      | yes        |
| `preprocessors`      | aligned rows to model features                              | yes        |
| `feature_converters` | the same features unpacked, in seqio's own way              | yes        |
"""
