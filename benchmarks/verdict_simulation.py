"""200 null audits and 200 planted leaks, without a model: how often the verdict says "it leaks".

python benchmarks/verdict_simulation.py [audits]
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.simulated_audits import null_settings, simulated_audit

AUDITS = int(sys.argv[1]) if len(sys.argv) > 1 else 200

kinds = Counter(simulated_audit(seed, **null_settings(seed)).kind for seed in range(AUDITS))
print(f"null audits: {dict(kinds)}; it leaks: {kinds['leak'] / AUDITS:.3f} (at most .05)")
print("planted leaks (100 members), by shift in standard deviations of a score:")
sizes = (0.25, 0.5, 0.75, 1.0)
for size in sizes:
    runs = range(AUDITS // len(sizes))
    found = [simulated_audit(10_000 + seed, leak=size) for seed in runs]
    share = sum(each.kind == "leak" for each in found) / len(found)
    auc = sum(each.best.auc for each in found) / len(found)
    print(f"  {size:.2f}: AUC {auc:.2f}, found {share:.2f}")
