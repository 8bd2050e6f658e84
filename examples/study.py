"""A study from Python: run it, read its tables, act with one of its policies.

Run it in this folder: python study.py my.yaml
"""

import sys

import numpy as np

import compression_gap as cg


def main(file: str, store: str = "store") -> cg.Results:
    """Run a study file, or go on where it stopped, and print what it found."""
    results = cg.run(cg.load_study(file), store)
    for sentence in results.headline:
        print(sentence)
    for cell in results.cells.to_pylist():
        if cell["rate"] is not None:
            low, high = (f"{100 * cell[f'rate_{end}']:.0f}" for end in ("low", "high"))
            print(f"{cell['label']}: {100 * cell['rate']:.0f} % [{low}, {high}]")
    policy = cg.Policy.load(results.cells.to_pylist()[0]["policies"][0])
    action = policy.act(policy.example(), np.array([0]))
    print(
        f"a chunk of {policy.spec.head}: {action.chunk.shape[1]} steps of {action.chunk.shape[2]} dimensions"
    )
    print(f"report: {results.write_report()}")
    return results


if __name__ == "__main__":  # worker processes import this file
    main(*sys.argv[1:])
