// What the box says, in the language of the page around it: English stands in the code, Chinese in the table below.

/**
 * A function `say`: say("Step {step} of {steps}", { step: 1, steps: 20 }) is that sentence, with its values.
 *
 * language: as an element's `lang` has it, such as "zh-CN"; what is not Chinese is English.
 */
export function speaker(language = "en") {
  const table = language.toLowerCase().startsWith("zh") ? CHINESE : {};
  return (english, values = {}) => (table[english] ?? english).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const CHINESE = {
  // The box
  Prompt: "提示词（中文或英文）",
  Seed: "随机种子",
  "Another seed": "换个种子",
  Steps: "步数",
  Guidance: "引导强度",
  Draw: "绘制",
  Stop: "停止",
  Examples: "示例",
  "Draw: {prompt}": "绘制：{prompt}",
  "Download PNG": "下载 PNG",
  "Copy link": "复制链接",
  Progress: "进度",
  "No picture yet": "还没有图像",
  "Attention to a word": "对某个词的注意力",
  "Show where it attended to": "看看图像的注意力落在哪里",

  // While it draws
  "A picture to begin with. The first that you draw loads the model, {size} MB.":
    "先放一张现成的图像。第一次绘制时，要加载 {size} MB 的模型。",
  "Loading the model": "正在加载模型",
  "Loading the model: {loaded} of {total} MB": "正在加载模型：已下载 {loaded} MB，共 {total} MB",
  Drawing: "正在绘制",
  "Step {step} of {steps}": "第 {step} 步，共 {steps} 步",
  "Preview after step {step} of {steps}: {prompt}": "第 {step} 步之后的预览，共 {steps} 步：{prompt}",
  "Stopped.": "已停止。",
  "Drawn in {seconds} seconds on the graphics processor.": "画好了，用图形处理器花了 {seconds} 秒。",
  "Drawn in {seconds} seconds on the processor.": "画好了，用处理器花了 {seconds} 秒。",
  "Drawn in {seconds} seconds on the processor, by {threads} threads.":
    "画好了，用处理器的 {threads} 个线程花了 {seconds} 秒。",
  "{prompt}. {said}": "{prompt}。{said}",
  "Bright where the picture attended to “{word}”, on 8 × 8 places.":
    "越亮的地方，对“{word}”的注意力越多；共 8 × 8 个位置。",
  "The link is copied: it draws this picture again.": "链接已复制：打开它，会再画出这张图像。",
  "Copy the address of this page: it draws this picture again.": "请复制本页的地址：打开它，会再画出这张图像。",

  // Faults
  "This browser cannot run the model, which needs WebAssembly.": "这个浏览器运行不了模型，因为模型需要 WebAssembly。",
  "The model cannot be loaded ({reason}).": "模型加载不了（{reason}）。",
  "{why} Here are pictures that it drew elsewhere.": "{why}下面是它在别处画的图像。",
  "The model cannot be run ({reason}).": "模型运行不了（{reason}）。",
  "no reason": "原因不明",
  "The picture cannot be drawn: {reason}.": "这张图像画不出来：{reason}。",
  "{file} cannot be fetched ({reason})": "{file} 下载不了（{reason}）",
  "{file} has another size than was expected": "{file} 的大小与预期的不同",
  "The prompt is empty: say what to draw, such as “a cute corgi puppy on the grass”.":
    "提示词是空的：说说要画什么，例如“a cute corgi puppy on the grass”。",
  "This page draws from a prompt only: leave out negative prompts and the tags of LoRAs.":
    "这一页只按提示词来画：请去掉反向提示词和 LoRA 的标签。",
  "The guidance must be a number from 1 (no guidance) to {most}, or 0 (the prompt is ignored), but is “{typed}”.":
    "引导强度必须是 1（无引导）到 {most} 之间的数，或者 0（不理会提示词），得到的是“{typed}”。",
  "The seed must be a whole number from {lowest} to {highest}, but is “{typed}”.":
    "随机种子必须是 {lowest} 到 {highest} 的整数，得到的是“{typed}”。",
  "The number of steps must be a whole number from {lowest} to {highest}, but is “{typed}”.":
    "步数必须是 {lowest} 到 {highest} 的整数，得到的是“{typed}”。",

  // Prompts
  "The model was trained on English captions, so it draws '{prompt}'.":
    "模型是用英文的图像描述训练的，所以画的是 '{prompt}'。",
  "Not in the course's dictionary: {words}.": "课程的词典里没有：{words}。",
  "No subject of the picture book is in '{prompt}'; there are {subjects}.":
    "“{prompt}”里没有图画书认识的主体；它认识的有：{subjects}。",
  "The prompt has no word in letters, so the seed alone decides what is drawn.":
    "提示词里没有由字母组成的词，所以画什么只由随机种子决定。",
  "No training caption has the word {word}, so its effect is arbitrary.":
    "训练用的图像描述里没有 {word} 这个词，所以它起什么作用说不准。",
  "No training caption has the word {word}, so its effect is arbitrary; the captions' colours are {colours}.":
    "训练用的图像描述里没有 {word} 这个词，所以它起什么作用说不准；图像描述里的颜色有 {colours}。",
  "No training caption has the word {word}, so its effect is arbitrary; did you mean {words}?":
    "训练用的图像描述里没有 {word} 这个词，所以它起什么作用说不准；你要的是不是 {words}？",
  "Nor do the captions have {count} further words: {words}.": "图像描述里还没有另外 {count} 个词：{words}。",
  "The captions have the word {word} only in {phrase}, so alone it hardly counts; write {phrase}.":
    "图像描述里，{word} 只出现在 {phrase} 当中，所以单独用几乎不起作用；请写 {phrase}。",
  "The prompt is too long: the model does not read {cut}.": "提示词太长：模型读不到 {cut}。",
  "The prompt is too long: the model does not read {cut} ({count} characters).":
    "提示词太长：模型读不到 {cut}（{count} 个字符）。",
  "{words}, {word}": "{words}、{word}",
  "{words} and {word}": "{words} 和 {word}",
  "{words} or {word}": "{words} 或 {word}",
};
