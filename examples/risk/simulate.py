#!/usr/bin/env python3
"""Values a basket option by simulation: one seed, many paths, one line of JSON."""
import json
import math
import random
import sys

seed, paths = int(sys.argv[1]), int(sys.argv[2])
spot, strike, rate, years, steps = 100.0, 105.0, 0.03, 1.0, 50
volatility, weight = [0.18, 0.25, 0.31], [0.5, 0.3, 0.2]

rng = random.Random(seed)
step = years / steps
drift = [(rate - v * v / 2) * step for v in volatility]
noise = [v * math.sqrt(step) for v in volatility]
total = squares = 0.0
worst = []
for _ in range(paths):
    value = 0.0
    for d, n, w in zip(drift, noise, weight):
        log = sum(d + n * rng.gauss(0, 1) for _ in range(steps))
        value += w * spot * math.exp(log)
    payoff = max(0.0, value - strike) * math.exp(-rate * years)
    total += payoff
    squares += payoff * payoff
    worst.append(value - spot)
worst.sort()
print(json.dumps({"paths": paths, "sum": total, "squares": squares, "var99": -worst[paths // 100]}))
