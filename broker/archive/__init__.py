"""The archive: every row that was published, exactly as the filters judged it, by night and place on the sky.

The worker puts the rows of a batch into the internal topic `archive`, inside the batch's transaction
(sink.py); one writer turns the topic into a folder of Parquet files (writer.py); readers take them back
(reader.py).
"""
