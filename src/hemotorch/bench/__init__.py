"""How fast a training or a prediction is, on what, why, and what to change: `hemotorch bench`.

bench_page   a bench as an HTML page
charts       the speed-up chart, sweeps and learning curves
clock        a clock for phases, the peak of a matrix product, and memory
commands     the parser of `hemotorch bench`
compare      two results row by row
configs      which configs are measured
curves       one learning curve
data         what a bench trains on
loops        hemotorch's step and the reference loop, seen alike
mlp          `bench mlp`: SGD, momentum and Adam on small networks
predict      `bench predict`: how long a user waits
processes    measurements in fresh processes, round by round
records      what is measured and what came of it, as bench.json keeps it
reference    the loop that the 2021 paper's authors had to write
sentence     the sentence that names the bottleneck
setup        machine, data and recipes of a bench of trainings
speedup      what the rows of a bench are compared with
tables       the rows as a table, for a page or a terminal
train        `bench train`: one job on all that the machine has
worker       one measurement in a fresh process
"""
