"""From aligned examples to training batches. The only home of seqio and TensorFlow.

| module               | what                                                        | TensorFlow |
|----------------------|-------------------------------------------------------------|------------|
| `alignment_parts`    | teacher records to aligned examples, a part at a time       | no         |
| `alignment_job`      | the same for records in Python                              | no         |
| `formats`            | the four formats as pure string functions                   | no         |
| `corpus`             | aligned folders in memory, split by question                | no         |
| `packing`            | several examples in one row                                 | no         |
| `packed`             | packed rows on disk, read by index                          | no         |
| `sources`            | aligned folders as a seqio data source                      | yes        |
| `preprocessors`      | aligned rows to model features                              | yes        |
| `feature_converters` | the same features unpacked, in seqio's own way              | yes        |
"""
