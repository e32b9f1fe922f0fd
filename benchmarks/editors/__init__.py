"""What the weight editors cost and what they hold, in four parts that run alone:

    python -m benchmarks.editors table --facts 100            # every method: efficacy, generality, locality, seconds
    python -m benchmarks.editors speed --sizes 1 10 100       # ours beside the plain way, same result
    python -m benchmarks.editors moments                      # how much text the second moments need
    python -m benchmarks.editors sequence --edits 1000        # one after another, ALL earlier edits asked again

Each prints its table with command, machine and date, and every row to stderr as soon as it is done.
--keep FILE        rows are kept there, and a run that was stopped goes on where it was
--limit SECONDS    bounds a method in ``table`` and ``sequence``
--set prefixes=5   another setting, for the methods that have it
--model gpt2-size  random weights in the shape of GPT-2 small
--completions      ``speed``: facts without their questions, so that a model without a chat template only completes
--peer PATH        ``speed`` compares with a checkout of EasyEdit or of memit
"""
