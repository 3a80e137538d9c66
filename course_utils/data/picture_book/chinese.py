"""Chinese prompts in the English of the captions: "一只猫坐在草地上" -> "a cat sitting on the grass".

The model was trained on English captions. Its world is small, so that a dictionary and a few rules suffice: words are
found from left to right, the longest first; number, colour and praise belong to the next subject, a pose to the last.
"""

import re
from dataclasses import dataclass, field, replace

from course_utils.data.picture_book.captions import (
    NAMES,
    NUMBERS,
    OPPOSITE,
    PLACE_WORDS,
    STYLE_WORDS,
    plural,
    with_article,
)

SUBJECTS = {
    "corgi": "柯基幼犬 小柯基 柯基犬 柯基狗 柯基 小狗 狗狗 幼犬 狗",
    "cat": "小猫咪 小猫 猫咪 猫",
    "rabbit": "小兔子 兔子 小兔 兔",
    "duck": "小鸭子 鸭子 小鸭 鸭",
    "ball": "皮球 小球 球",
    "teapot": "茶壶 水壶",
    "house": "小房子 房子 小屋 房屋 屋子",
    "tree": "大树 小树 树木 树",
    "tulip": "郁金香 花朵 花",
    "mushroom": "蘑菇",
    "car": "小汽车 汽车 轿车 小车 车",
    "boat": "小帆船 帆船 小船 船",
}
COLOURS = {
    "red": "红",
    "orange": "橙 橘",
    "yellow": "黄",
    "green": "绿",
    "blue": "蓝",
    "purple": "紫",
    "pink": "粉红 粉",
    "white": "白",
}
PLACES = {
    "grass": "草地上 草坪上 草丛里 草丛中 草原上 草地",
    "beach": "沙滩上 海滩上 海边 沙滩 海滩",
    "snow": "雪地里 雪地上 雪中 雪里 冬天里 冬天 雪地",
    "desert": "沙漠里 沙漠中 沙漠",
    "forest": "森林里 森林中 树林里 树林中 林中 森林 树林",
    "room": "房间里 屋里 屋子里 室内 客厅里 客厅 房间",
    "city": "城市里 城市中 城里 街道上 街上 城市",
    "night": "夜晚 夜里 夜间 夜空下 星空下 月光下 晚上",
}
POSES = {"sitting": "坐", "standing": "站", "sleeping": "睡觉 睡"}
STYLES = {
    "picture book": "图画书 绘本 插画",
    "coloured pencil": "彩色铅笔 彩铅 铅笔画 铅笔",
    "pixel art": "像素艺术 像素画 像素",
    "watercolour": "水彩画 水彩",
}
SIDES = {
    "left of": "左边 左侧 左面 左方",
    "right of": "右边 右侧 右面 右方",
    "above": "上面 上方 上边",
    "below": "下面 下方 下边",
}
COUNTS = {1: "一 1", 2: "两 二 2", 3: "三 3"}
PRAISE = {"cute": "可爱", "little": "小小", "happy": "快乐 开心", "pretty": "漂亮 美丽 好看"}
# Words that say nothing more: measure words, particles, and the talk about a picture.
SILENT = """
只 个 条 头 辆 艘 座 栋 间 棵 株 朵 颗 把 幅 张 匹 枚 的 地 着 了 有 是 和 与 跟 及 色 颜色
画 图片 图画 图 照片 风格 这 那 一下 请 帮 我 画出 停 放 立 长 生长 躺 趴 位于 正 风
旁边 里面 中 里 上 下 在 ， 。 、 ！ ； ： “ ” , . !
"""

UNKNOWN = "没有 熊猫"  # words with parts that are in the dictionary

KINDS: dict[str, dict] = {
    "subject": SUBJECTS, "colour": COLOURS, "place": PLACES, "pose": POSES, "style": STYLES, "side": SIDES,
    "count": COUNTS, "praise": PRAISE,
}  # fmt: skip
WORDS = {
    word: (kind, meaning) for kind, table in KINDS.items() for meaning, words in table.items() for word in words.split()
} | {word: ("silent", word) for word in SILENT.split()}
WORDS |= {word: ("unknown", word) for word in UNKNOWN.split()}
LONGEST = sorted(WORDS, key=len, reverse=True)


@dataclass
class Said:
    """What a prompt says of one subject."""

    kind: str = ""
    count: int = 1
    colour: str = ""
    praise: str = ""
    pose: str = ""

    def in_english(self) -> str:
        name = NAMES[self.kind][0]
        words = [self.praise, self.colour, name if self.count == 1 else plural(name), self.pose]
        text = " ".join(filter(None, words))
        return with_article(text) if self.count == 1 else f"{NUMBERS[self.count]} {text}"


@dataclass(frozen=True)
class English:
    """A Chinese prompt in English, and the pieces of it that are not in the dictionary."""

    text: str
    unknown: list[str] = field(default_factory=list)


def to_english(prompt: str) -> English:
    """Return a Chinese prompt in the words of the captions: subjects, their relation, the place, the style.

    What the dictionary lacks is left out of the text and listed in `unknown`; English words stay where they are found.
    """
    things: list[Said] = []
    coming, place, style, relation = Said(), "", "", ""
    unknown: list[str] = []
    before, last = "", ""  # the word before this one, and its kind
    for word in pieces(prompt):
        kind, meaning = WORDS.get(word, ("unknown", word))
        if last == "unknown" and word != "的" and kind not in ("subject", "colour", "praise"):
            coming = Said()  # no adjective, but a thing, to which belonged what was said before it
        if kind == "subject":
            things.append(replace(coming, kind=meaning))
            coming = Said()
        elif kind in ("count", "colour", "praise"):
            setattr(coming, kind, meaning)
        elif kind == "pose":
            (things[-1] if things else coming).pose = meaning
        elif kind == "place":
            place = meaning
        elif kind == "style":
            style = meaning
        elif kind == "side" and not relation:
            # "A 在 B 左边" and "A 在左边，…": A is there; "A 的左边是 B": B is.
            relation = meaning if len(things) > 1 or before == "在" else OPPOSITE[meaning]
        elif kind == "unknown":
            unknown.append(word)
        before, last = word, kind
    return English(_sentence(things, relation, place, style), unknown)


def _sentence(things: list[Said], relation: str, place: str, style: str) -> str:
    said = [thing.in_english() for thing in things]
    text = f" {relation} ".join(said[:2]) if relation and len(said) == 2 else " and ".join(said)
    text = " ".join(filter(None, [text, PLACE_WORDS[place][0] if place else ""]))
    return STYLE_WORDS[style][-1 if style == "picture book" else 1].format(text) if style and text else text or style


def require_english(prompt: str) -> English:
    """Return `to_english(prompt)`. Raises ValueError, naming what can be said, if it has no subject that is known."""
    english = to_english(prompt)
    if not any(WORDS.get(word, ("",))[0] == "subject" for word in pieces(prompt)):
        subjects = "、".join(words.split()[0] for words in SUBJECTS.values())
        raise ValueError(f"No subject of the picture book is in '{prompt}'; there are {subjects}.")
    return english


def pieces(prompt: str) -> list[str]:
    """Return the words of a prompt, each as long as the dictionary has it; what it lacks stays together."""
    found: list[str] = []
    rest, lacking = re.sub(r"(?<![A-Za-z])\s+|\s+(?![A-Za-z])", "", prompt), ""  # blanks stay between Latin words
    while rest:
        word = next((word for word in LONGEST if rest.startswith(word)), "")
        if word:
            found += [lacking, word] if lacking else [word]
            lacking = ""
        else:
            lacking += rest[0]
        rest = rest[len(word) or 1 :]
    return found + [lacking] * bool(lacking)
