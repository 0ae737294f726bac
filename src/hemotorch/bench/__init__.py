"""How fast a training or a prediction is, on what, why, and what to change: `hemotorch bench`.

chart         the speed-up chart, sweeps and learning curves
children      child processes that end together
clock         a clock for phases, the peak of a matrix product, and memory
commands      the parser of `hemotorch bench`
compare       two results row by row
configs       which configs are measured
curves        one learning curve in a fresh process
data          what a bench trains on
loops         hemotorch's step and the reference loop, seen alike
measure       runs the workers, round by round
mlp           `bench mlp`: SGD, momentum and Adam on small networks
page          a bench as an HTML page
predict       `bench predict`: how long a user waits
predict_page  the same as an HTML page
reference     the loop that the 2021 paper's authors had to write
result        a whole measurement, as bench.json and as a table
rows          one config, its rounds and its row
sentence      the sentence that names the bottleneck
train         `bench train`: one job on all that the machine has
worker        one measurement in a fresh process
"""
