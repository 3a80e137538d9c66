"""The explorer of chapter 11: what a pipeline needs, what the device has, and what is done about it."""

from course_utils.machine.devices import GIBIBYTE
from course_utils.machine.memory_plan import RESERVE, Machine, Part, plan_memory
from course_utils.widgets.explorer import Choice, Explorer, Slider

TRAINED_SIDE = 512  # pixels; the counts of the parts are for this
HALF = {"cuda": "float16", "mps": "float16", "cpu": "float32"}


def plan_explorer(parts: dict[str, Part], main_memory: float = 12.0) -> Explorer:
    """What `plan_memory` looks at, a bar each, and what it chooses. main_memory: GiB beside those of the device."""

    def draw_plan(ax, free: float, pictures: int, pixels: str, device: str) -> str:
        machine = Machine(device, round(free * GIBIBYTE), HALF[device], round(main_memory * GIBIBYTE))
        plan = plan_memory(parts, machine, pictures, int(pixels) / TRAINED_SIDE)
        needs = [need / GIBIBYTE for _, need, _ in plan.tried]
        room = (machine.free - RESERVE) / GIBIBYTE
        colours = ["#009E73" if fits else "#BBBBBB" for *_, fits in plan.tried]
        ax.barh(range(len(needs)), needs, color=colours, height=0.35)
        for row, (words, need, fits) in enumerate(plan.tried):
            words = words.replace("all on the device", "all there").replace(" offload", "")
            said = f"{words}: {need / GIBIBYTE:.1f}{', fits' if fits else ''}"
            ax.text(0, row - 0.22, said, fontsize=7 if len(needs) < 5 else 6, va="bottom")
        ax.axvline(room, color="#D55E00", linestyle="--", linewidth=1.2)
        ax.set(yticks=[], ylim=(len(needs) - 0.5, -0.9), xlim=(0, 1.15 * max(*needs, room)))
        ax.set_title(f"{device}, {free:g} GiB free", fontsize=9)
        ax.set_xlabel("GiB; dashed: usable", fontsize=8)
        what = f"{pictures} picture{'s' if pictures > 1 else ''} of {pixels} pixels"
        if not plan.fits:
            return f"With {free:g} GiB free on {device}, {what} at once cannot be drawn: {plan.reasons[0]}"
        chosen = plan.tried[-1][0]
        return f"With {free:g} GiB free on {device}, {what} at once: {chosen}, about {plan.need / GIBIBYTE:.1f} GiB."

    return Explorer(
        draw_plan,
        {
            "free": Slider(1.0, 24.0, 0.5),
            "pictures": Slider(1, 16),
            "pixels": Choice(("512", "768", "1024")),
            "device": Choice(("cuda", "mps", "cpu")),
        },
        {"free": 7.5, "pictures": 1, "pixels": "512", "device": "cuda"},
    )
