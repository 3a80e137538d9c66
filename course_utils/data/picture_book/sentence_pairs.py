"""Sentences in English and in Chinese that say the same of a scene: what a text encoder learns Chinese from.

The English sentence is the plain caption; the Chinese one has several wordings, with other orders of the words.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from course_utils.data.picture_book.captions import OPPOSITE, PLACE_WORDS, Caption, phrase
from course_utils.data.picture_book.scenes import Scene, Thing

# measure words, and names
CHINESE_NAMES = {
    "corgi": ("只", "柯基犬 柯基 小狗"),
    "cat": ("只", "猫 猫 小猫"),
    "rabbit": ("只", "兔子 兔子 小兔子"),
    "duck": ("只", "鸭子 鸭子 小鸭子"),
    "ball": ("个", "球 球 皮球"),
    "teapot": ("把", "茶壶"),
    "house": ("座", "房子 房子 小屋"),
    "tree": ("棵", "树 树 大树"),
    "tulip": ("朵", "郁金香 郁金香 花"),
    "mushroom": ("个", "蘑菇"),
    "car": ("辆", "汽车 汽车 小汽车"),
    "boat": ("艘", "帆船 帆船 小船"),
}
CHINESE_COLOURS = {
    "red": "红", "orange": "橙", "yellow": "黄", "green": "绿", "blue": "蓝", "purple": "紫", "pink": "粉",
    "white": "白",
}  # fmt: skip
CHINESE_PLACES = {
    "grass": "草地上 草地上 草坪上",
    "beach": "沙滩上 沙滩上 海边",
    "snow": "雪地里 雪地里 雪中",
    "desert": "沙漠里 沙漠里 沙漠中",
    "forest": "森林里 森林里 树林里",
    "room": "房间里 房间里 屋里",
    "city": "城市里 城市里 街上",
    "night": "星空下 星空下 月光下",
}
CHINESE_TIMES = {"night": "夜里 夜晚", "snow": "冬天"}  # in front of a sentence, beside the words for the place
CHINESE_POSES = {"sitting": "坐", "standing": "站", "sleeping": "睡"}
CHINESE_SIDES = {"left of": "左边 左侧", "right of": "右边 右侧", "above": "上面 上方", "below": "下面 下方"}
CHINESE_STYLES = {"coloured pencil": "彩色铅笔画 彩铅画", "pixel art": "像素画", "watercolour": "水彩画"}
CHINESE_NUMBERS = {1: "一", 2: "两", 3: "三"}


@dataclass(frozen=True)
class Pair:
    """An English caption with what it claims, and a Chinese sentence that claims the same."""

    english: Caption
    chinese: str


def sentence_pair(scene: Scene, seed: int = 0) -> Pair:
    """One pair of sentences about the scene; `seed` chooses the wording of the Chinese one.

    Of two different things, either may be named first, with the relation to the other; only of the first is the pose
    said. The place is always named; a style, if it is not the picture book's own.
    """
    rng = random.Random(f"pair/{scene.seed}/{seed}")
    things, relation = scene.things, scene.relation
    if relation:
        if rng.random() < 0.5:
            things, relation = things[::-1], OPPOSITE[relation]
        things = (things[0], Thing(things[1].kind, things[1].colour))
    style = None if scene.style == "picture book" else scene.style
    said = [phrase(thing, things.count(thing)) for thing in dict.fromkeys(things)]
    text = f"{f' {relation} '.join(said)} {PLACE_WORDS[scene.place][0]}"
    english = Caption(f"{text}, {style}" if style else text, things, scene.place, style, relation)
    chinese = _two(things, relation, scene.place, rng) if relation else _alike(things, scene.place, rng)
    if style:
        words = rng.choice(CHINESE_STYLES[style].split())
        chinese = rng.choice(("{1}：{0}", "一幅{1}：{0}", "{0}，{1}")).format(chinese, words)
    return Pair(english, chinese)


def _alike(things: Sequence[Thing], place: str, rng: random.Random) -> str:
    """One thing, or several alike: what it does where, where what is, or the place first."""
    it, pose = _phrase(things[0], len(things), rng), CHINESE_POSES.get(things[0].pose or "", "")
    form = rng.randrange(3)
    if form == 0:
        return f"{it}{pose}在{rng.choice(CHINESE_PLACES[place].split())}"
    front = _front(place, rng)
    if form == 1:
        return f"{front}{f'{pose}着' if pose else '有'}{it}"
    return f"{front}，{it}{f'{pose}着' if pose else ''}"


def _two(things: Sequence[Thing], relation: str, place: str, rng: random.Random) -> str:
    """Two things: the first is on a side of the second, or the second on the other side of the first."""
    one, other = (_phrase(thing, 1, rng) for thing in things)
    pose = CHINESE_POSES.get(things[0].pose or "", "")
    form = rng.randrange(2 if pose else 3)
    if form == 2:
        return f"{_front(place, rng)}，{one}的{rng.choice(CHINESE_SIDES[OPPOSITE[relation]].split())}是{other}"
    where = f"在{other}{rng.choice(('的', ''))}{rng.choice(CHINESE_SIDES[relation].split())}"
    if form == 1:
        return f"{_front(place, rng)}，{one}{pose}{where}"
    return f"{one}{pose}在{rng.choice(CHINESE_PLACES[place].split())}，{where}"


def _front(place: str, rng: random.Random) -> str:
    return rng.choice([*CHINESE_PLACES[place].split(), *CHINESE_TIMES.get(place, "").split()])


def _phrase(thing: Thing, count: int, rng: random.Random) -> str:
    """A number, a measure word, the colour in its long or short form, and the name."""
    measure, names = CHINESE_NAMES[thing.kind]
    name, colour = rng.choice(names.split()), CHINESE_COLOURS.get(thing.colour or "", "")
    if colour and (name[0] in "小大" or rng.random() < 0.6):  # "白大树" is not said
        colour += "色的"
    return f"{CHINESE_NUMBERS[count]}{measure}{colour}{name}"
