"""Learning tasks: episodes, the samplers that draw them, and evaluation on them.

An episode depends only on the sampler's seed and the episode's number. Start at `episode` (`Episode` and the `Sampler`
interface). There is one sampler per file: `balanced_sampler`, whose queries `query_draws` may spread unevenly,
`varied_sampler`, `grouped_sampler`. `evaluate` measures a learner.
"""
