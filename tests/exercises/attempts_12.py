"""Attempts at the exercises of chapter 12."""

import math

import torch
from attempts import mutant, variant

TIMES, BLEND, RENOISE = "12.remaining_times", "12.blend_known", "12.renoise"
BETWEEN, INJECT, RECOLOUR = "12.between", "12.inject_maps", "12.recolour"


# The times that remain


@mutant(TIMES, "times[-0:] is the *whole* list")
def from_the_end(times, strength):
    return times[-int(len(times) * strength) :]


@mutant(TIMES, "These are the *first* times")
def first_ones(times, strength):
    return times[: int(len(times) * strength)]


@mutant(TIMES, "not the share that is left out")
def skipped(times, strength):
    return times[int(len(times) * strength) :]


@mutant(TIMES, "rounded to the nearest")
def rounded(times, strength):
    return times[len(times) - round(len(times) * strength) :]


@mutant(TIMES, "The number of steps was rounded up")
def cut_what_is_skipped(times, strength):
    return times[len(times) - math.ceil(len(times) * strength) :]


@mutant(TIMES, "At least one step was kept")
def at_least_one(times, strength):
    return times[len(times) - max(1, int(len(times) * strength)) :]


@mutant(TIMES, "Return a part of `times` itself")
def the_number(times, strength):
    return int(len(times) * strength)


@variant(TIMES)
def one_by_one(times, strength):
    skip = len(times) - int(strength * len(times))
    return [t for number, t in enumerate(times) if number >= skip]


@variant(TIMES)
def from_the_end_with_care(times, strength):
    keep = math.floor(len(times) * strength)
    return times[-keep:] if keep else []


# Known latents around what is drawn


def share_of_signal(alpha_bar, t):
    return 1.0 if t == -1 else alpha_bar[t].item()


def noised(x0, noise, a):
    return a**0.5 * x0 + (1 - a) ** 0.5 * noise


@mutant(BLEND, "alpha_bar[-1] is the *last* entry")
def last_of_the_table(x_t, known_x0, noise, mask, t, alpha_bar):
    return mask * x_t + (1 - mask) * noised(known_x0, noise, alpha_bar[t])


@mutant(BLEND, "The mask is the wrong way round")
def keeps_the_hole(x_t, known_x0, noise, mask, t, alpha_bar):
    return (1 - mask) * x_t + mask * noised(known_x0, noise, share_of_signal(alpha_bar, t))


@mutant(BLEND, "The known latents are clean")
def clean_outside(x_t, known_x0, noise, mask, t, alpha_bar):
    return mask * x_t + (1 - mask) * known_x0


@mutant(BLEND, "The roots are missing")
def without_roots(x_t, known_x0, noise, mask, t, alpha_bar):
    a = share_of_signal(alpha_bar, t)
    return mask * x_t + (1 - mask) * (a * known_x0 + (1 - a) * noise)


@mutant(BLEND, "made smaller, and got no noise")
def no_noise(x_t, known_x0, noise, mask, t, alpha_bar):
    return mask * x_t + (1 - mask) * share_of_signal(alpha_bar, t) ** 0.5 * known_x0


@mutant(BLEND, "Outside the mask x_t is still there")
def added(x_t, known_x0, noise, mask, t, alpha_bar):
    return x_t + (1 - mask) * noised(known_x0, noise, share_of_signal(alpha_bar, t))


@mutant(BLEND, "noise a second time")
def all_noised(x_t, known_x0, noise, mask, t, alpha_bar):
    return noised(mask * x_t + (1 - mask) * known_x0, noise, share_of_signal(alpha_bar, t))


@mutant(BLEND, "nothing is drawn")
def known_alone(x_t, known_x0, noise, mask, t, alpha_bar):
    return noised(known_x0, noise, share_of_signal(alpha_bar, t))


@mutant(BLEND, "The two factors are swapped")
def factors_swapped(x_t, known_x0, noise, mask, t, alpha_bar):
    return mask * x_t + (1 - mask) * noised(known_x0, noise, 1 - share_of_signal(alpha_bar, t))


@mutant(BLEND, "the input x_t was changed in place")
def in_place(x_t, known_x0, noise, mask, t, alpha_bar):
    outside = (mask < 0.5).expand_as(x_t)
    x_t[outside] = noised(known_x0, noise, share_of_signal(alpha_bar, t))[outside]
    return x_t


@variant(BLEND)
def by_where(x_t, known_x0, noise, mask, t, alpha_bar):
    known = noised(known_x0, noise, share_of_signal(alpha_bar, t))
    return torch.where(mask.bool(), x_t, known)


@variant(BLEND)
def by_lerp(x_t, known_x0, noise, mask, t, alpha_bar):
    a = torch.cat([alpha_bar, torch.ones(1)])[t]  # index -1 is the 1 at the end
    return torch.lerp(a.sqrt() * known_x0 + (1 - a).sqrt() * noise, x_t, mask.expand_as(x_t))


# The way back up


@mutant(RENOISE, "alpha_bar[-1] is the *last* entry")
def from_the_last_entry(x_earlier, earlier, t, alpha_bar, noise):
    return noised(x_earlier, noise, (alpha_bar[t] / alpha_bar[earlier]).item())


@mutant(RENOISE, "This adds noise as if x were clean")
def as_if_clean(x_earlier, earlier, t, alpha_bar, noise):
    return noised(x_earlier, noise, alpha_bar[t].item())


@mutant(RENOISE, "but the noise is that of a clean x")
def noise_of_a_clean_one(x_earlier, earlier, t, alpha_bar, noise):
    ratio = alpha_bar[t].item() / share_of_signal(alpha_bar, earlier)
    return ratio**0.5 * x_earlier + (1 - alpha_bar[t].item()) ** 0.5 * noise


@mutant(RENOISE, "The noise is the difference of the two alpha_bar")
def difference(x_earlier, earlier, t, alpha_bar, noise):
    a_t, a = alpha_bar[t].item(), share_of_signal(alpha_bar, earlier)
    return (a_t / a) ** 0.5 * x_earlier + (a - a_t) ** 0.5 * noise


@mutant(RENOISE, "The roots are missing")
def ratio_itself(x_earlier, earlier, t, alpha_bar, noise):
    ratio = alpha_bar[t].item() / share_of_signal(alpha_bar, earlier)
    return ratio * x_earlier + (1 - ratio) * noise


@mutant(RENOISE, "x kept its size")
def only_added(x_earlier, earlier, t, alpha_bar, noise):
    ratio = alpha_bar[t].item() / share_of_signal(alpha_bar, earlier)
    return x_earlier + (1 - ratio) ** 0.5 * noise


@mutant(RENOISE, "and got no noise")
def only_made_smaller(x_earlier, earlier, t, alpha_bar, noise):
    return (alpha_bar[t].item() / share_of_signal(alpha_bar, earlier)) ** 0.5 * x_earlier


@mutant(RENOISE, "√ratio belongs to x")
def ratio_for_the_noise(x_earlier, earlier, t, alpha_bar, noise):
    return noised(x_earlier, noise, 1 - alpha_bar[t].item() / share_of_signal(alpha_bar, earlier))


@variant(RENOISE)
def step_by_step(x_earlier, earlier, t, alpha_bar, noise):
    padded = torch.cat([torch.ones(1), alpha_bar]).double()
    signal = (padded[earlier + 2 : t + 2] / padded[earlier + 1 : t + 1]).sqrt().prod().item()
    return signal * x_earlier + math.sqrt(1 - signal**2) * noise


@variant(RENOISE)
def by_roots(x_earlier, earlier, t, alpha_bar, noise):
    a = 1.0 if earlier < 0 else alpha_bar[earlier]
    return (alpha_bar[t] / a).sqrt() * x_earlier + (1 - alpha_bar[t] / a).sqrt() * noise


# From one noise to another


def shares(count):
    return torch.linspace(0, 1, count).tolist()


def line(a, b, share):
    return (1 - share) * a + share * b


def brought_back(x, a, b, share):
    """x with norms on the way from that of a to that of b, each sample for itself."""
    norm, first, last = (y.flatten(1).norm(dim=1) for y in (x, a, b))
    return x * (line(first, last, share) / norm).view(-1, *[1] * (a.ndim - 1))


@mutant(BETWEEN, "the middle is too short")
def straight(a, b, count):
    return torch.stack([line(a, b, share) for share in shares(count)])


@mutant(BETWEEN, "the last noise is off")
def without_the_end(a, b, count):
    return torch.stack([brought_back(line(a, b, i / count), a, b, i / count) for i in range(count)])


@mutant(BETWEEN, "the first noise is off")
def without_the_start(a, b, count):
    points = [(i + 1) / count for i in range(count)]
    return torch.stack([brought_back(line(a, b, share), a, b, share) for share in points])


@mutant(BETWEEN, "the path starts at b")
def turned_round(a, b, count):
    return torch.stack([brought_back(line(b, a, share), b, a, share) for share in shares(count)])


@mutant(BETWEEN, "The batch comes first here")
def batch_first(a, b, count):
    return torch.stack([brought_back(line(a, b, share), a, b, share) for share in shares(count)], 1)


@mutant(BETWEEN, "waits somewhere and jumps elsewhere")
def late(a, b, count):
    late_shares = [share**6 for share in shares(count)]
    return torch.stack([brought_back(line(a, b, share), a, b, share) for share in late_shares])


@mutant(BETWEEN, "Which norm does the point half-way have?")
def weights_that_add_up_to_more(a, b, count):
    return torch.stack([min(1.0, 2 - 2 * share) * a + min(1.0, 2 * share) * b for share in shares(count)])


@mutant(BETWEEN, "torch.stack(list) makes one tensor")
def a_list(a, b, count):
    return [brought_back(line(a, b, share), a, b, share) for share in shares(count)]


@variant(BETWEEN)
def rescaled_line(a, b, count):
    return torch.stack([brought_back(line(a, b, share), a, b, share) for share in shares(count)])


@variant(BETWEEN)
def quarter_circle(a, b, count):
    angles = [share * math.pi / 2 for share in shares(count)]
    return torch.stack([math.cos(angle) * a + math.sin(angle) * b for angle in angles])


@variant(BETWEEN)
def roots_of_shares(a, b, count):
    return torch.stack([math.sqrt(1 - share) * a + math.sqrt(share) * b for share in shares(count)])


@variant(BETWEEN)
def number_by_number(a, b, count):
    """The numbers of b take the place of those of a, a few more at each point."""
    order = torch.randperm(a[0].numel(), generator=torch.Generator().manual_seed(0)).view(a[0].shape) / a[0].numel()
    return torch.stack([torch.where(order < share, b, a) for share in shares(count)])


# Maps of another prompt


@mutant(INJECT, "nothing was put in")
def own_maps(own, kept, partners=None):
    return own.clone()


@mutant(INJECT, "The direction is wrong")
def other_direction(own, kept, partners=None):
    maps = own.clone()
    for here, there in enumerate(partners if partners is not None else range(own.shape[-1])):
        if there is not None and there < own.shape[-1] and here < kept.shape[-1]:
            maps[..., there] = kept[..., here]
    return maps


@mutant(INJECT, "got the map of token 0")
def first_for_none(own, kept, partners=None):
    return kept[..., [partner or 0 for partner in partners]] if partners is not None else kept.clone()


@mutant(INJECT, "got the map of the last token")
def last_for_none(own, kept, partners=None):
    if partners is None:
        return kept.clone()
    return kept[..., [-1 if partner is None else partner for partner in partners]]


@mutant(INJECT, "has an empty map")
def nothing_for_none(own, kept, partners=None):
    if partners is None:
        return kept.clone()
    return torch.stack([own[..., 0] * 0 if p is None else kept[..., p] for p in partners], -1)


@mutant(INJECT, "Each token got the map at its own place")
def same_place(own, kept, partners=None):
    maps = own.clone()
    for token, partner in enumerate(partners if partners is not None else range(own.shape[-1])):
        if partner is not None and token < kept.shape[-1]:
            maps[..., token] = kept[..., token]
    return maps


@mutant(INJECT, "The rows were divided by their sums")
def sums_of_one(own, kept, partners=None):
    maps = by_indices(own, kept, partners)
    return maps / maps.sum(-1, keepdim=True)


@mutant(INJECT, "no second one")
def softmax_again(own, kept, partners=None):
    return by_indices(own, kept, partners).softmax(-1)


@mutant(INJECT, "The kept ones *replace* the own ones")
def averaged(own, kept, partners=None):
    return (own + by_indices(own, kept, partners)) / 2


@mutant(INJECT, "the input own was changed in place")
def into_own(own, kept, partners=None):
    for token, partner in enumerate(partners if partners is not None else range(own.shape[-1])):
        if partner is not None:
            own[..., token] = kept[..., partner]
    return own


@variant(INJECT)
def by_indices(own, kept, partners=None):
    if partners is None:
        return kept.clone()
    new = [token for token, partner in enumerate(partners) if partner is not None]
    maps = own.clone()
    maps[..., new] = kept[..., [partners[token] for token in new]]
    return maps


@variant(INJECT)
def column_by_column(own, kept, partners=None):
    partners = range(kept.shape[-1]) if partners is None else partners
    return torch.stack([own[..., j] if p is None else kept[..., p] for j, p in enumerate(partners)], -1)


# A blue ball


RED, BLUE = (torch.tensor(colour).view(3, 1, 1) / 127.5 - 1 for colour in ((216.0, 58, 50), (68.0, 122, 212)))


@mutant(RECOLOUR, "The whole image was edited")
def everything(pictures, mask):
    return pictures.flip(1)


@mutant(RECOLOUR, "1 is the ball")
def all_but_the_ball(pictures, mask):
    return torch.where(mask > 0.5, pictures, pictures.flip(1))


@mutant(RECOLOUR, "Nothing changed inside the mask")
def nothing(pictures, mask):
    return pictures.clone()


@mutant(RECOLOUR, "It no longer looks like a ball")
def one_colour(pictures, mask):
    return torch.where(mask > 0.5, BLUE.expand_as(pictures), pictures)


@mutant(RECOLOUR, "of another colour")
def green(pictures, mask):
    return torch.where(mask > 0.5, pictures[:, [1, 0, 2]], pictures)


@mutant(RECOLOUR, "An image is in [-1, 1]")
def out_of_range(pictures, mask):
    return pictures + mask * 2 * (BLUE - RED)


@mutant(RECOLOUR, "of the same size")
def cut_out(pictures, mask):
    return pictures.flip(1) * mask[:1, :, :32, :32] if len(pictures) < 0 else pictures.flip(1)[..., :32]


@mutant(RECOLOUR, "the input pictures was changed in place")
def into_the_pictures(pictures, mask):
    inside = mask.expand_as(pictures) > 0.5
    pictures[inside] = pictures.flip(1)[inside]
    return pictures


@variant(RECOLOUR)
def colours_moved(pictures, mask):
    return (pictures + mask * (BLUE - RED)).clamp(-1, 1)


@variant(RECOLOUR)
def light_kept(pictures, mask):
    light = pictures.mean(1, keepdim=True)
    mean = (light * mask).sum((1, 2, 3), keepdim=True) / mask.sum((1, 2, 3), keepdim=True)
    return torch.lerp(pictures, (BLUE + light - mean).clamp(-1, 1), mask)


@variant(RECOLOUR)
def hues_turned(pictures, mask):
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv((pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
    hsv[..., 0] = (hsv[..., 0] + 0.61) % 1
    turned = torch.from_numpy(hsv_to_rgb(hsv)).permute(0, 3, 1, 2).float() * 2 - 1
    return torch.where(mask > 0.5, turned, pictures)
