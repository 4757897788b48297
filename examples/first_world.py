"""Make a world from the bundled photo and print what each chunk found.

python first_world.py [OUT]
"""

import sys
from importlib import resources

from worldwarp import explore

photo = str(resources.files("worldwarp") / "photos" / "pagoda.jpg")
out = sys.argv[1] if len(sys.argv) > 1 else "worlds/first"
for step in explore(image=photo, path="left,forward", frames=17, size=(96, 160), out=out):
    print(f"chunk {step.chunk.index}: {step.gauges['hole_ratio']:.1%} new, {step.integration.total} primitives")
