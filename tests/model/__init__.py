"""A model of Kafka, of its client and of a worker, small enough to try thousands of bad days in a minute.

    kafka.py      what the servers hold and answer: partitions, transactions, positions
    client.py     what librdkafka makes of the answers: requests in flight, repeats, conclusions
    worker.py     a worker: reads, publishes, commits, goes back; it asks `broker.publish.protocol` what to do
    world.py      time, the network between them, and the faults of a schedule
    explorer.py   many schedules, and the smallest that breaks the promise

Here belongs what Kafka and its client are known to do, each rule with its source; not what they should do.
"""
