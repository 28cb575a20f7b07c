"""Teacher data: from what a teacher wrote to records (`schemas.records`).

| module                                | what                                                     |
|---------------------------------------|----------------------------------------------------------|
| `records`                             | filters rows and writes them                             |
| `collect`, `grammar`                  | teachers in this process                                 |
| `importers`                           | what others wrote: public data, logs, chains             |
| `names`, `wire`                       | what OpenAI-compatible servers send (pure)               |
| `client`, `asking`, `journal`         | asks them; keeps every reply                             |
| `sampling`, `prompts`, `budget`       | what is asked, how it is put, what it costs              |
| `first_look`                          | what one reply tells, before more is spent               |
| `filtering`, `steps`, `summary`       | from replies to rows; how good a teacher is              |
"""
