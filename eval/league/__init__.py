"""The league: every system on one stream, at equal FLOPs and at equal bytes, with error bars by videos.

    python -m eval.league gates --data DEV                  # what each gate lets on, on a set of the dev split
    python -m eval.league run --data DIR --runs DIR         # what is missing; a league that was stopped goes on
    python -m eval.league write                             # docs/league.md, of eval/results/league alone

`run` writes one line a row into `eval/results/league`, with a mark an item; `write` makes everything else of that.
"""
