"""Legal inputs of chapter 12."""

from legal import legal


@legal("12.remaining_times")
def remaining_times(case):
    for steps in (1, 2, 7, 50):
        times = [999 - 19 * number for number in range(steps)]
        for strength in (0.0, 0.05, 0.3, 0.58, 1.0):
            yield times, strength


def table_of(case):
    return (1 - case.uniform(0.02, 0.12, 30)).cumprod(0)


@legal("12.blend_known")
def blend_known(case):
    table = table_of(case)
    for shape, masks in (((1, 1, 2, 3), 1), ((3, 2, 4, 2), 1), ((3, 2, 4, 2), 3)):
        for t in (-1, 0, 14, 29):
            mask = (case.uniform(0, 1, masks, 1, *shape[2:]) < 0.5).float()
            yield case.normal(*shape), case.normal(*shape), case.normal(*shape), mask, t, table


@legal("12.renoise")
def renoise(case):
    table = table_of(case)
    for shape in ((1, 2), (3, 2, 2, 4)):
        for earlier, t in ((-1, 0), (-1, 29), (0, 1), (7, 20), (28, 29)):
            yield case.normal(*shape), earlier, t, table, case.normal(*shape)


@legal("12.between")
def between(case):
    for shape in ((1, 2048), (3, 8, 16, 16)):
        for count in (2, 3, 8):
            yield case.normal(*shape), case.normal(*shape), count


@legal("12.inject_maps")
def inject_maps(case):
    for tokens, before, partners in ((1, 1, None), (3, 3, None), (2, 4, [3, None]), (4, 2, [None, 1, 0, None])):
        yield case.normal(2, 2, 3, tokens).softmax(-1), case.normal(2, 2, 3, before).softmax(-1), partners


@legal("12.recolour")
def recolour(case):
    for batch in (1, 3):
        for masks in {1, batch}:
            pictures = case.uniform(-1, 1, batch, 3, 8, 8)
            yield pictures, (case.uniform(0, 1, masks, 1, 8, 8) < 0.5).float()
