"""How fast udpsend is beside what people use today: whole commands, from file to file in memory.

`python -m tools.bench` makes a file of random bytes on tmpfs, then lets each tool move it once per round, in turn
(A B C A B C), so that a slow moment of the machine does not hit one tool alone. `tool` has the protocol that a tool
speaks and the clock, `ours` and `peers` the tools, `network` what lies between the two sides, `process` the weighing of
processes, `memory` what makes memory equally warm for all, `report` the table and the JSON.
"""
