"""The host underneath: physical CPUs, run queues, threads and neighbours, as a discrete-event simulation in virtual time."""
