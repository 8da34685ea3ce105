"""What is counted and watched while the broker runs, and what proves afterwards that nothing was lost.

Here belongs what reads: the ledger's account, the comparison of it with the topics. What a stage counts while
it works belongs to the stage; what a person is shown of it, to cli/ and api/.
"""
