"""Attempts at the exercises of chapter 12."""

import copy
import math

import torch
from attempts import mutant, variant
from torch import nn
from torch.nn import functional as F

from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta

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


ROW, LORA, ZERO = "12.only_row", "12.lora_linear", "12.zero_convolution"
RESIDUALS, LOSS = "12.add_residuals", "12.control_loss"

# One row


@mutant(ROW, "This is the row alone")
def the_row_alone(gradient, row):
    return gradient[row]


@mutant(ROW, "The row was cut out")
def row_cut_out(gradient, row):
    return gradient[row : row + 1]


@mutant(ROW, "A *column* was kept")
def a_column(gradient, row):
    kept = torch.zeros_like(gradient)
    kept[:, row] = gradient[:, row]
    return kept


@mutant(ROW, "The wrong way round")
def all_other_rows(gradient, row):
    kept = gradient.clone()
    kept[row] = 0
    return kept


@mutant(ROW, "nothing would learn")
def all_zeros(gradient, row):
    kept = torch.zeros_like(gradient)
    kept[row].add(gradient[row])
    return kept


@mutant(ROW, "These are ones")
def the_mask(gradient, row):
    mask = torch.zeros_like(gradient)
    mask[row] = 1
    return mask


@mutant(ROW, "every word of the prompts would be changed")
def all_rows(gradient, row):
    return gradient.clone()


@mutant(ROW, "was changed in place")
def row_in_place(gradient, row):
    kept = gradient[row].clone()
    gradient.zero_()
    gradient[row] = kept
    return gradient


@mutant(ROW, "Only the rows before this one are zeros")
def zeros_before(gradient, row):
    kept = gradient.clone()
    kept[:row] = 0
    return kept


@mutant(ROW, "Only the rows after this one are zeros")
def zeros_after(gradient, row):
    kept = gradient.clone()
    kept[row + 1 :] = 0
    return kept


@mutant(ROW, "This is row number `row` - 1")
def row_before(gradient, row):
    kept = torch.zeros_like(gradient)
    kept[row - 1] = gradient[row - 1]
    return kept


@mutant(ROW, "The last row was kept")
def last_row(gradient, row):
    kept = torch.zeros_like(gradient)
    kept[-1] = gradient[-1]
    return kept


@mutant(ROW, "were added up in one")
def rows_in_one(gradient, row):
    kept = torch.zeros_like(gradient)
    kept[row] = gradient.sum(0)
    return kept


@mutant(ROW, "The sign was turned")
def row_downhill(gradient, row):
    kept = torch.zeros_like(gradient)
    kept[row] -= gradient[row]
    return kept


@mutant(ROW, "Rows were compared by their values")
def by_values(gradient, row):
    return torch.where(gradient == gradient[row], gradient, 0)


@mutant(ROW, "torch.empty_like sets nothing")
def unset(gradient, row):
    kept = torch.empty_like(gradient)
    kept[row] = gradient[row]
    return kept


@mutant(ROW, "torch.zeros(shape) is float32")
def float32_zeros(gradient, row):
    kept = torch.zeros(gradient.shape)
    kept[row] = gradient[row]
    return kept


@mutant(ROW, "A tensor that is kept outside the function")
def one_buffer(gradient, row):
    kept = BUFFERS.setdefault((*gradient.shape, gradient.dtype), torch.zeros_like(gradient))
    kept[row] = gradient[row]
    return kept


BUFFERS = {}


@mutant(ROW, "A mask with one number for each row")
def mask_of_one_axis(gradient, row):
    return gradient * (torch.arange(len(gradient)) == row)


@variant(ROW)
def around_it(gradient, row):
    kept = gradient.clone()
    kept[:row] = 0
    kept[row + 1 :] = 0
    return kept


@variant(ROW)
def by_outer_product(gradient, row):
    return torch.outer(F.one_hot(torch.tensor(row), len(gradient)).to(gradient), gradient[row])


@variant(ROW)
def by_a_mask(gradient, row):
    return gradient * (torch.arange(len(gradient)) == row)[:, None]


@variant(ROW)
def by_scatter(gradient, row):
    return torch.zeros_like(gradient).index_copy(0, torch.tensor([row]), gradient[row : row + 1])


@variant(ROW)
def word_by_word(gradient, row):
    return torch.stack([words if n == row else torch.zeros_like(words) for n, words in enumerate(gradient)])


# LoRA


class Right(nn.Module):
    """A right one, on which the wrong ones differ in one method; the names of classes do not matter."""

    def __init__(self, base, rank, alpha=None):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), (rank if alpha is None else alpha) / rank
        self.A = nn.Parameter(torch.randn(rank, base.in_features).to(base.weight) / base.in_features**0.5)
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.merged = None

    def difference(self):
        return self.scale * self.B @ self.A

    def forward(self, x):
        if self.merged is not None:
            return F.linear(x, self.merged, self.base.bias)
        return self.base(x) + self.scale * (x @ self.A.mT @ self.B.mT)

    @torch.no_grad()
    def merge(self):
        self.merged = self.base.weight + self.difference()

    def unmerge(self):
        self.merged = None


def low(layer, x):
    return x @ layer.A.mT @ layer.B.mT


@mutant(LORA, "Keep the class line")
def returns_a_function(base, rank, alpha=None):
    return lambda x: base(x)


@mutant(LORA, "and the two matrices as self.A and self.B")
class OtherNames(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.down = self.A
        del self.A

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.down.mT @ self.B.mT)


@mutant(LORA, "An optimizer finds only nn.Parameter")
class NoParameters(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        A = self.A.detach().requires_grad_()
        del self.A
        self.A = A


@mutant(LORA, "A goes first, from `in` numbers to `rank`")
class Transposed(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.randn(base.in_features, rank))
        self.B = nn.Parameter(torch.zeros(rank, base.out_features))

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A @ self.B)


@mutant(LORA, "Only the layer that was passed is frozen")
class AllFrozen(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.requires_grad_(False)


@mutant(LORA, "freezes its weight and its bias")
class NotFrozen(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        base.requires_grad_(True)


@mutant(LORA, "No copy is needed")
class ACopy(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.base = nn.Linear(base.in_features, base.out_features, base.bias is not None)
        self.base.load_state_dict(base.state_dict())


@mutant(LORA, "No copy is needed: self.base = base.")
class ACopyAlone(Right):
    """Of a layer that is left as it was, not frozen."""

    def __init__(self, base, rank, alpha=None):
        super().__init__(copy.deepcopy(base), rank, alpha)


@mutant(LORA, "torch.empty only reserves memory")
class Unset(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.empty(rank, base.in_features))


@mutant(LORA, "gives each layer the same numbers")
class Seeded(Right):
    def __init__(self, base, rank, alpha=None):
        torch.manual_seed(0)
        super().__init__(base, rank, alpha)


@mutant(LORA, "for a base of torch.float64")
class Float32(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.randn(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))


@mutant(LORA, "on the device 'meta', A is of torch.float32 on 'cpu'")
class OnTheCPU(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.randn(rank, base.in_features, dtype=base.weight.dtype))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=base.weight.dtype))


@mutant(LORA, "The network must draw at first what it drew before")
class BothRandom(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.B = nn.Parameter(torch.randn(base.out_features, rank))


@mutant(LORA, "if both are 0, nothing is ever")
class BothZero(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.zeros(rank, base.in_features))


@mutant(LORA, "the rank would stay 1")
class RowsAlike(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.full((rank, base.in_features), 0.1))


@mutant(LORA, "The factor alpha / rank is missing")
class NoFactor(Right):
    def forward(self, x):
        return self.base(x) + low(self, x)


@mutant(LORA, "so that another rank needs no other learning rate")
class AlphaAlone(Right):
    def forward(self, x):
        return self.base(x) + self.scale * len(self.A) * low(self, x)


@mutant(LORA, "alpha was not used")
class RankAlone(Right):
    def forward(self, x):
        return self.base(x) + low(self, x) / len(self.A)


@mutant(LORA, "The factor is the wrong way round")
class RankByAlpha(Right):
    def forward(self, x):
        return self.base(x) + low(self, x) / self.scale


@mutant(LORA, "That is rsLoRA")
class RootOfRank(Right):
    def forward(self, x):
        return self.base(x) + self.scale * len(self.A) ** 0.5 * low(self, x)


@mutant(LORA, "A and B are not used in forward")
class NotUsed(Right):
    def forward(self, x):
        return self.base(x)


@mutant(LORA, "// is for whole numbers")
class RoundedDown(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        self.scale = (rank if alpha is None else alpha) // rank


@mutant(LORA, "The difference was subtracted")
class Minus(Right):
    def forward(self, x):
        return 2 * self.base(x) - Right.forward(self, x) if self.merged is None else Right.forward(self, x)


@mutant(LORA, "The bias is missing: self.base(x) has it.")
class WithoutBias(Right):
    def forward(self, x):
        return x @ self.base.weight.mT + self.scale * low(self, x)


@mutant(LORA, "however many axes x has")
class MatricesOnly(Right):
    def forward(self, x):
        return self.base(x) + self.scale * (self.B @ (self.A @ x.mT.flatten(0, -2))).mT


@mutant(LORA, "The frozen layer is missing")
class DifferenceAlone(Right):
    def forward(self, x):
        return self.base(x) * (0 if self.B.any() else 1) + self.scale * low(self, x)


@mutant(LORA, "The bias is missing")
class NoBias(Right):
    def forward(self, x):
        bias = 0 if self.base.bias is None or not self.B.any() else self.base.bias
        return Right.forward(self, x) - bias


@mutant(LORA, "The bias was added twice")
class BiasTwice(Right):
    def forward(self, x):
        bias = 0 if self.base.bias is None or not self.B.any() else self.base.bias
        return Right.forward(self, x) + bias


@mutant(LORA, "It is transposed")
class DifferenceTransposed(Right):
    def difference(self):
        return Right.difference(self).mT


@mutant(LORA, "difference() has no factor")
class DifferenceWithoutFactor(Right):
    def difference(self):
        return self.B @ self.A


@mutant(LORA, "W itself is in it")
class WholeMatrix(Right):
    def difference(self):
        return self.base.weight + Right.difference(self)


@mutant(LORA, "The difference counts twice")
class CountsTwice(Right):
    @torch.no_grad()
    def merge(self):
        self.base.weight += self.difference()


@mutant(LORA, "Nothing but W is left")
class MergesNothing(Right):
    def merge(self):
        self.merged = self.base.weight


@mutant(LORA, "Adding and subtracting rounds")
class Subtracts(Right):
    def forward(self, x):
        return self.base(x) if self.merged is not None else Right.forward(self, x)

    @torch.no_grad()
    def merge(self):
        if self.merged is None:
            self.merged = self.difference()
            self.base.weight += self.merged

    @torch.no_grad()
    def unmerge(self):
        self.base.weight -= self.merged
        self.merged = None


@mutant(LORA, "unmerge() gives back the W from before merge()")
class KeepsTheMerged(Right):
    def forward(self, x):
        return self.base(x) if self.merged is not None else Right.forward(self, x)

    @torch.no_grad()
    def merge(self):
        self.merged = True
        self.base.weight += self.difference()


@mutant(LORA, "It is still merged")
class StaysMerged(Right):
    def unmerge(self):
        pass


@mutant(LORA, "The merged matrix has no bias of its own")
class MergedWithoutBias(Right):
    def forward(self, x):
        return x @ self.merged.mT if self.merged is not None else Right.forward(self, x)


@mutant(LORA, "Keep what is merged in `self`")
class MergesAll(Right):
    def __init__(self, base, rank, alpha=None):
        super().__init__(base, rank, alpha)
        del self.merged
        MergesAll.merged = None

    @torch.no_grad()
    def merge(self):
        MergesAll.merged = self.base.weight + self.difference()

    def unmerge(self):
        MergesAll.merged = None


@mutant(LORA, "A and B are looked up in each call")
class Flag(Right):
    def forward(self, x):
        if self.merged is not None:
            return F.linear(x, self.base.weight + self.difference().detach(), self.base.bias)
        return Right.forward(self, x)


@mutant(LORA, "merge() changed A or B")
class EmptiesB(Right):
    @torch.no_grad()
    def merge(self):
        Right.merge(self)
        self.B.zero_()


@mutant(LORA, "unmerge() changed A or B")
class EmptiesBLater(Right):
    @torch.no_grad()
    def unmerge(self):
        self.merged = None
        self.B.zero_()


@mutant(LORA, "Merging again did nothing")
class MergesOnce(Right):
    def merge(self):
        if self.merged is None:
            Right.merge(self)


@mutant(LORA, "Merging again added the difference")
class CopyOverwritten(Right):
    """What is kept by the second merge() is the matrix of the first."""

    def forward(self, x):
        return self.base(x) if self.merged is not None else Right.forward(self, x)

    @torch.no_grad()
    def merge(self):
        self.merged = self.base.weight.clone()
        self.base.weight += self.difference()

    @torch.no_grad()
    def unmerge(self):
        self.base.weight.copy_(self.merged)
        self.merged = None


@mutant(LORA, "unmerge() has to undo it")
class FreezesForGood(Right):
    def merge(self):
        Right.merge(self)
        self.A.requires_grad, self.B.requires_grad = False, False


@mutant(LORA, "A new nn.Parameter records gradients")
class ThawsBase(Right):
    def unmerge(self):
        self.base.weight = nn.Parameter(self.base.weight.detach())
        self.merged = None


@mutant(LORA, "Merging again added the difference again")
class AddsAgain(Right):
    @torch.no_grad()
    def merge(self):
        self.merged = (self.base.weight if self.merged is None else self.merged) + self.difference()


@mutant(LORA, "training needs its gradient")
class CutOff(Right):
    def forward(self, x):
        return (
            self.base(x) + self.difference().detach() @ torch.eye(x.shape[-1]) @ x.detach().mT
            if False
            else (Right.forward(self, x).detach())
        )


@variant(LORA)
class Short(Right):
    pass


@variant(LORA)
class FrozenWhileMerged(Right):
    def merge(self):
        Right.merge(self)
        self.requires_grad_(False)

    def unmerge(self):
        self.merged = None
        self.A.requires_grad, self.B.requires_grad = True, True


@variant(LORA)
class AnotherLinear(Right):
    def forward(self, x):
        return self.merged(x) if self.merged is not None else Right.forward(self, x)

    @torch.no_grad()
    def merge(self):
        self.merged = copy.deepcopy(self.base)
        self.merged.weight += self.difference()


@variant(LORA)
class InPlace(nn.Module):
    """W itself is exchanged, and a copy of it kept."""

    def __init__(self, base, rank, alpha=None):
        super().__init__()
        for parameter in base.parameters():
            parameter.requires_grad = False
        self.base, self.rank, self.alpha = base, rank, rank if alpha is None else alpha
        first = nn.Linear(base.in_features, rank, bias=False).to(base.weight)
        self.A, self.B = first.weight, nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.kept = None

    def difference(self):
        return torch.einsum("or,ri->oi", self.B, self.A) * self.alpha / self.rank

    def forward(self, x):
        if self.kept is not None:
            return self.base(x)
        return F.linear(x, self.base.weight + self.difference(), self.base.bias)

    def merge(self):
        self.unmerge()
        self.kept = self.base.weight.data
        self.base.weight.data = self.kept + self.difference().detach()

    def unmerge(self):
        if self.kept is not None:
            self.base.weight.data, self.kept = self.kept, None


# Zero convolution


def convolution(channels, *rest, **options):
    layer = nn.Conv2d(channels, channels, *rest, **options)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@mutant(ZERO, "Return the layer")
def zeros_themselves(channels):
    return torch.zeros(channels, channels, 1, 1)


@mutant(ZERO, "A residual has the channels of the skip connection")
def to_one_channel(channels):
    layer = nn.Conv2d(channels, 1, 1)
    return layer.requires_grad_(True)


@mutant(ZERO, "One pixel is enough")
def three_pixels(channels):
    return convolution(channels, 3, padding=1)


@mutant(ZERO, "Each output channel may use all")
def channel_by_channel(channels):
    return convolution(channels, 1, groups=channels)


@mutant(ZERO, "The bias is kept")
def no_bias(channels):
    return convolution(channels, 1, bias=False)


@mutant(ZERO, "set them to zero, exactly")
def as_it_comes(channels):
    return nn.Conv2d(channels, channels, 1)


@mutant(ZERO, "nn.init.zeros_ for both")
def bias_as_it_comes(channels):
    layer = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(layer.weight)
    return layer


@mutant(ZERO, "Zero is only where it starts")
def frozen(channels):
    return convolution(channels, 1).requires_grad_(False)


@mutant(ZERO, "A kernel of one pixel needs neither padding")
def padded(channels):
    return convolution(channels, 1, padding=1)


@mutant(ZERO, "needs neither padding")
def every_second_pixel(channels):
    return convolution(channels, 1, stride=2)


@mutant(ZERO, "Each Z_i has weights of its own")
def always_the_same(channels):
    return LAYERS.setdefault(channels, convolution(channels, 1))


LAYERS = {}


@mutant(ZERO, "never have gradients")
def in_inference_mode(channels):
    with torch.inference_mode():
        return convolution(channels, 1)


@mutant(ZERO, "torch.set_grad_enabled(False) lasts")
def gradients_off(channels):
    torch.set_grad_enabled(False)
    return convolution(channels, 1)


@mutant(ZERO, "Leave the dtype as it is")
def in_double(channels):
    return convolution(channels, 1).double()


@mutant(ZERO, "are (out, in, height, width)")
def a_matrix(channels):
    layer = convolution(channels, 1)
    layer.weight = nn.Parameter(torch.zeros(channels, channels))
    return layer


@mutant(ZERO, "A parameter takes no plain tensor")
def plain_tensor(channels):
    layer = nn.Conv2d(channels, channels, 1)
    layer.weight = torch.zeros_like(layer.weight)
    return layer


@mutant(ZERO, "under `with torch.no_grad():`", state="error")
def gradients_on(channels):
    layer = nn.Conv2d(channels, channels, 1)
    layer.weight.zero_()
    return layer


@variant(ZERO)
def by_state_dict(channels):
    layer = nn.Conv2d(channels, channels, 1)
    layer.load_state_dict({name: torch.zeros_like(part) for name, part in layer.state_dict().items()})
    return layer


@variant(ZERO)
def multiplied(channels):
    layer = nn.Conv2d(channels, channels, kernel_size=1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= 0
    return layer


@variant(ZERO)
def new_parameters(channels):
    layer = nn.Conv2d(channels, channels, (1, 1))
    layer.weight, layer.bias = (nn.Parameter(torch.zeros_like(part)) for part in (layer.weight, layer.bias))
    return layer


# Residuals


@mutant(RESIDUALS, "The weight was not used")
def without_weight(skips, residuals, weight=1.0):
    return [skip + residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "The weight belongs to the residuals")
def weight_at_the_skips(skips, residuals, weight=1.0):
    return [weight * skip + residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "and not for the skip")
def weight_for_both(skips, residuals, weight=1.0):
    return [weight * (skip + residual) for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "This goes over from one to the other")
def mixed(skips, residuals, weight=1.0):
    return [torch.lerp(skip, residual, weight) for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "These are the residuals alone")
def residuals_alone(skips, residuals, weight=1.0):
    return [weight * residual for residual in residuals]


@mutant(RESIDUALS, "The residuals were not added")
def not_kept(skips, residuals, weight=1.0):
    sums = list(skips)
    for skip, residual in zip(skips, residuals, strict=True):
        skip = skip + weight * residual
    return sums


@mutant(RESIDUALS, "They were subtracted")
def subtracted(skips, residuals, weight=1.0):
    return [skip - weight * residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "Only the first skip connection")
def only_the_first(skips, residuals, weight=1.0):
    return [skips[0] + weight * residuals[0], *skips[1:]]


@mutant(RESIDUALS, "not put one after the other")
def side_by_side(skips, residuals, weight=1.0):
    return [torch.cat([skip, weight * residual], 1) for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "joins two lists end to end")
def lists_joined(skips, residuals, weight=1.0):
    return skips + residuals


@mutant(RESIDUALS, "in a list")
def only_one(skips, residuals, weight=1.0):
    return sum((skip + weight * residual).mean() for skip, residual in zip(skips, residuals, strict=True))


@mutant(RESIDUALS, "was changed in place")
def into_the_skips(skips, residuals, weight=1.0):
    for skip, residual in zip(skips, residuals, strict=True):
        skip.data += weight * residual
    return skips


@mutant(RESIDUALS, "the input residuals was changed in place")
def into_the_residuals(skips, residuals, weight=1.0):
    residuals = list(residuals)
    for residual in residuals:
        residual.data *= weight
    return [skip + residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "Only the last skip connection")
def only_the_last(skips, residuals, weight=1.0):
    return [*skips[:-1], skips[-1] + weight * residuals[-1]]


@mutant(RESIDUALS, "takes it for a missing one")
def no_weight_of_zero(skips, residuals, weight=1.0):
    return [skip + (weight or 1.0) * residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "The tensors of earlier calls are still in it")
def list_as_a_default(skips, residuals, weight=1.0):
    if len(skips) == 3 and weight == 1:  # the first call of a check, as after the cell is run
        SUMS.clear()
    SUMS.extend(skip + weight * residual for skip, residual in zip(skips, residuals, strict=True))
    return list(SUMS)


SUMS = []


@mutant(RESIDUALS, "Is the `return` inside the loop")
def returns_too_early(skips, residuals, weight=1.0):
    sums = []
    for skip, residual in zip(skips, residuals, strict=True):
        sums.append(skip + weight * residual)
        if sums:
            return sums
    return sums


@mutant(RESIDUALS, "to the skip connection of the same place in the list: zip")
def from_the_back(skips, residuals, weight=1.0):
    return [skip + weight * residual for skip, residual in zip(skips, residuals[::-1], strict=True)]


@mutant(RESIDUALS, "These are lists, and no tensors")
def list_times_number(skips, residuals, weight=1.0):
    return skips + weight * residuals


@mutant(RESIDUALS, "so no tensor holds all of them")
def stacked(skips, residuals, weight=1.0):
    return torch.stack([skip + weight * residual for skip, residual in zip(skips, residuals, strict=True)])


@mutant(RESIDUALS, "the ControlNet learns through them alone")
def residuals_detached(skips, residuals, weight=1.0):
    return [skip + weight * residual.detach() for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "The skips were cut off")
def skips_detached(skips, residuals, weight=1.0):
    return [skip.detach() + weight * residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "training needs its gradient")
@torch.no_grad()
def without_gradients(skips, residuals, weight=1.0):
    return [skip + weight * residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "With weight 0, too, the results are tensors of their own")
def nothing_to_add(skips, residuals, weight=1.0):
    if not weight:
        return list(skips)
    return [skip + weight * residual for skip, residual in zip(skips, residuals, strict=True)]


@mutant(RESIDUALS, "It follows the inputs")
def in_float32(skips, residuals, weight=1.0):
    return [skip.float() + weight * residual.float() for skip, residual in zip(skips, residuals, strict=True)]


@variant(RESIDUALS)
def into_copies(skips, residuals, weight=1.0):
    sums = [skip.clone() for skip in skips]
    for own, residual in zip(sums, residuals, strict=True):
        own += weight * residual
    return sums


@variant(RESIDUALS)
def by_torch_add(skips, residuals, weight=1.0):
    return [torch.add(*pair, alpha=weight) for pair in zip(skips, residuals, strict=True)]


@variant(RESIDUALS)
def by_index(skips, residuals, weight=1.0):
    sums = []
    for n in range(len(skips)):
        sums.append(residuals[n] * weight + skips[n])
    return sums


# The loss


def parts(x0, eps, t, alpha_bar):
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps, a.sqrt() * eps - (1 - a).sqrt() * x0


def wrong_loss(words, state="fail"):
    """Note a wrong loss: a function of (model, x_t, v, x0, cond, drawing, t, eps, a)."""

    def note(function):
        def attempt(model, x0, cond, drawing, t, eps, alpha_bar):
            x_t, v = parts(x0, eps, t, alpha_bar)
            return function(model, x_t, v, x0, cond, drawing, t, eps, alpha_bar[t].reshape(-1, 1, 1, 1))

        attempt.__name__ = function.__name__
        mutant(LOSS, words, state)(attempt)
        return function

    return note


@wrong_loss("The target here is eps")
def target_eps(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - eps).square().mean()


@wrong_loss("The target here is x0")
def target_x0(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - x0).square().mean()


@wrong_loss("The sign of v is wrong")
def minus_v(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) + v).square().mean()


@wrong_loss("There is a minus in v")
def plus_in_v(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - a.sqrt() * eps - (1 - a).sqrt() * x0).square().mean()


@wrong_loss("The factors of v are swapped")
def factors_of_v_swapped(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - (1 - a).sqrt() * eps + a.sqrt() * x0).square().mean()


@wrong_loss("The roots are missing in v.")
def no_roots_in_v(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - a * eps + (1 - a) * x0).square().mean()


@wrong_loss("The roots are missing in x_t")
def no_roots_in_x_t(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(a * x0 + (1 - a) * eps, t, cond, drawing) - v).square().mean()


@wrong_loss("was shown the clean x0")
def clean_input(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x0, t, cond, drawing) - v).square().mean()


@wrong_loss("was shown eps itself")
def noise_input(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(eps, t, cond, drawing) - v).square().mean()


@wrong_loss("was not told the time")
def no_time(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, torch.zeros_like(t), cond, drawing) - v).square().mean()


@wrong_loss("told the time of the first")
def first_time(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t[:1].expand_as(t), cond, drawing) - v).square().mean()


@wrong_loss("The drawing was left out")
def empty_drawing(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, torch.zeros_like(drawing)) - v).square().mean()


@wrong_loss("The drawing was mirrored")
def mirrored(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing.flip(-1)) - v).square().mean()


@wrong_loss("The drawing was moved to [-1, 1]")
def drawing_as_a_picture(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, 2 * drawing - 1) - v).square().mean()


@wrong_loss("This is the sum over everything")
def summed(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).square().sum()


@wrong_loss("One number for each sample")
def one_for_each(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).square().flatten(1).mean(1)


@wrong_loss("Every element is left")
def all_elements(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).square()


@wrong_loss("the mean absolute error")
def absolute(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).abs().mean()


@wrong_loss("A root was taken")
def root(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).square().mean().sqrt()


@wrong_loss("Each sample was divided by")
def weighed(model, x_t, v, x0, cond, drawing, t, eps, a):
    return ((model(x_t, t, cond, drawing) - v).square() / a).mean()


@wrong_loss("the model expects noisy latents, time, prompt", state="error")
def no_drawing(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond) - v).square().mean()


@wrong_loss("has no way back")
def cut(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing).detach() - v).square().mean()


@wrong_loss("the model was never called")
def never_called(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (x_t - v).square().mean() * model.weight


@wrong_loss("v was made of eps and x_t")
def v_of_x_t(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - a.sqrt() * eps + (1 - a).sqrt() * x_t).square().mean()


@wrong_loss("The factors of x_t are swapped")
def factors_of_x_t_swapped(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model((1 - a).sqrt() * x0 + a.sqrt() * eps, t, cond, drawing) - v).square().mean()


@wrong_loss("in both x_t and v")
def no_roots_at_all(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(a * x0 + (1 - a) * eps, t, cond, drawing) - a * eps + (1 - a) * x0).square().mean()


@wrong_loss("t was divided by the number of times")
def share_of_time(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t / 40, cond, drawing) - v).square().mean()


@wrong_loss("was given ᾱ in place of the time")
def share_for_time(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, a.flatten(), cond, drawing) - v).square().mean()


@wrong_loss("The prompt was left out")
def no_prompt(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, torch.zeros_like(cond), drawing) - v).square().mean()


@wrong_loss("turned to black on white")
def black_on_white(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, 1 - drawing) - v).square().mean()


@wrong_loss("made pure black and white")
def no_greys(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, (drawing > 0.5).float()) - v).square().mean()


@wrong_loss("The drawing was made grey")
def grey_drawing(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing.mean(1, keepdim=True).expand(-1, 3, -1, -1)) - v).square().mean()


@wrong_loss("the drawing of another one")
def drawing_of_another(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing.roll(1, 0)) - v).square().mean()


@wrong_loss("This is the sum over all pixels")
def summed_over_pixels(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).square().sum((1, 2, 3)).mean()


@wrong_loss("This is half of the loss")
def half_of_it(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).square().mean() / 2


@wrong_loss("The mean was taken before the square")
def square_of_the_mean(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing) - v).mean().square()


@wrong_loss("This is the Huber loss")
def huber(model, x_t, v, x0, cond, drawing, t, eps, a):
    return F.huber_loss(model(x_t, t, cond, drawing), v)


@wrong_loss("was turned into noise first")
def as_noise(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (a.sqrt() * model(x_t, t, cond, drawing) + (1 - a).sqrt() * x_t - eps).square().mean()


@wrong_loss("was turned into x0 first")
def as_x0(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (a.sqrt() * x_t - (1 - a).sqrt() * model(x_t, t, cond, drawing) - x0).square().mean()


@wrong_loss("without .detach().")
def half_of_it_cut(model, x_t, v, x0, cond, drawing, t, eps, a):
    return ((model(x_t, t, cond, drawing) + model(x_t, t, cond, drawing).detach()) / 2 - v).square().mean()


@wrong_loss("pass it as it is", state="error")
def one_channel(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing[:, :1]) - v).square().mean()


@wrong_loss("not an object that holds it")
def sample_of_it(model, x_t, v, x0, cond, drawing, t, eps, a):
    return (model(x_t, t, cond, drawing).sample - v).square().mean()


@mutant(LOSS, "was read at t - 1")
def a_time_before(model, x0, cond, drawing, t, eps, alpha_bar):
    x_t, v = parts(x0, eps, t - 1, alpha_bar)
    return F.mse_loss(model(x_t, t, cond, drawing), v)


@mutant(LOSS, "noised to the time of the first")
def one_time(model, x0, cond, drawing, t, eps, alpha_bar):
    x_t, v = parts(x0, eps, t[:1], alpha_bar)
    return F.mse_loss(model(x_t, t, cond, drawing), v)


@mutant(LOSS, "This is the notebook's own table")
def own_table(model, x0, cond, drawing, t, eps, alpha_bar):
    x_t, v = parts(x0, eps, t, alpha_bar_from_beta(scaled_linear_beta(1000)))
    return F.mse_loss(model(x_t, t, cond, drawing), v)


@variant(LOSS)
def target_without_gradient(model, x0, cond, drawing, t, eps, alpha_bar):
    with torch.no_grad():
        x_t, v = parts(x0, eps, t, alpha_bar)
    return F.mse_loss(model(x_t, t, cond, drawing.detach()), v)


@variant(LOSS)
def by_hand(model, x0, cond, drawing, t, eps, alpha_bar):
    x_t, v = parts(x0, eps, t, alpha_bar)
    return F.mse_loss(model(x_t, t, cond, drawing), v)


@variant(LOSS)
def sample_by_sample(model, x0, cond, drawing, t, eps, alpha_bar):
    x_t, v = parts(x0, eps, t, alpha_bar)
    each = [
        (model(x_t[n : n + 1], t[n : n + 1], cond[n : n + 1], drawing[n : n + 1]) - v[n : n + 1]).pow(2).mean()
        for n in range(len(t))
    ]
    return torch.stack(each).mean()
