"""The offline job of `specialize-jax align`: teacher records to aligned examples, part by part.

| module    | holds                                                                          |
|-----------|--------------------------------------------------------------------------------|
| `job`     | `align_part`: one Parquet file to another, for any runner                      |
| `columns` | a part as flat arrays, byte strings dictionary-encoded                         |
| `checks`  | which rows may be bad, found by arrays; what is wrong, said by `records`       |
| `modes`   | a mode each: columns to sparse targets                                         |
| `batches` | few shapes; the batch axis divided among local devices                         |
| `totals`  | what a part says of itself: coverage, mass, reasons, worst examples            |
| `plain`   | the same for records in Python, one row in, one aligned row out                |
"""
