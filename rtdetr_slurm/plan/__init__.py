"""What will be done: spec + site profile → Plan, a value that is printed, compared and submitted.

`plan.model` is standard library only, so that the compute node can read a plan back.
"""
