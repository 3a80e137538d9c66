"""Wrong versions of a function, made by rewriting its syntax tree: one change at a time, two where one is too few."""

import ast
import copy
import inspect
import itertools
import random
import sys
import textwrap

import torch
from legal import DRIVE, LEGAL
from torch import nn

from course_utils.exercises.limits import limited_output, limited_time, state_kept
from course_utils.exercises.oracles import Case

FEWEST = 40  # versions of each reference
OPERATORS = {
    ast.Add: [ast.Sub, ast.Mult], ast.Sub: [ast.Add, ast.Mult], ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult, ast.Sub],
    ast.Pow: [ast.Mult, ast.Div], ast.FloorDiv: [ast.Mult, ast.Div], ast.Mod: [ast.FloorDiv], ast.MatMult: [ast.Mult],
    ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd],
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In], ast.And: [ast.Or], ast.Or: [ast.And],
}  # fmt: skip
OTHER_NAMES = {
    "sum": ["mean"], "mean": ["sum"], "min": ["max"], "max": ["min"], "argmin": ["argmax"], "argmax": ["argmin"],
    "sqrt": ["square"], "square": ["sqrt", "abs"], "exp": ["exp2"], "log": ["log2", "log1p"], "log2": ["log"],
    "cos": ["sin"], "sin": ["cos"], "zeros": ["ones"], "ones": ["zeros"], "zeros_like": ["ones_like"],
    "randn": ["rand"], "rand": ["randn"], "randn_like": ["rand_like"], "cumprod": ["cumsum"], "cumsum": ["cumprod"],
    "softmax": ["log_softmax"], "log_softmax": ["softmax"], "sigmoid": ["tanh"], "softplus": ["relu"],
    "floor": ["ceil"], "ceil": ["floor"], "any": ["all"], "all": ["any"], "triu": ["tril"], "tril": ["triu"],
}  # fmt: skip
DROPPED = {
    "detach", "unsqueeze", "squeeze", "reshape", "view", "flatten", "transpose", "permute", "clamp", "sqrt", "square",
    "exp", "log", "float", "long", "mean", "sum", "cumprod", "softmax", "sigmoid", "abs", "expand_like", "contiguous",
    "round", "cumsum", "normalize", "clone", "requires_grad_", "t",
}  # fmt: skip


def versions(exercise, fewest=FEWEST):
    """Yield (what was changed, wrong version) of an exercise's reference, at least `fewest` where its code allows."""
    function, tree = exercise.reference, _parsed(exercise.reference)
    hidden = set(inspect.signature(function).parameters) - set(exercise.signature.parameters)
    single = list(_changes(tree, hidden))
    yield from ((name, made) for name, changed in single if (made := _made(function, changed)))
    missing = fewest - len(single)
    pairs = (
        (f"{name}; {other}", twice)
        for name, changed in single
        for other, twice in _changes(changed, hidden)
        if ast.dump(twice) != ast.dump(tree)
    )
    chosen = list(itertools.islice(pairs, 2000)) if missing > 0 else []
    random.Random(0).shuffle(chosen)
    yield from ((name, made) for name, changed in chosen[:missing] if (made := _made(function, changed)))


def _parsed(function) -> ast.Module:
    """Return the tree of the source, without docstrings, annotations and checks of what was passed."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.fix_missing_locations(_WithoutChecks().visit(tree))


class _WithoutChecks(ast.NodeTransformer):
    """Takes away require_...(...) and `if ...: raise ...`: wrong inputs are not what an exercise is about."""

    def visit_Expr(self, node):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        return None if isinstance(called, ast.Name) and called.id.startswith("require_") else node

    def visit_If(self, node):
        if not node.orelse and all(isinstance(statement, ast.Raise) for statement in node.body):
            return None
        return self.generic_visit(node)


def _made(function, tree):
    """Return the function that a changed tree defines, in the world of the original; None if it defines none."""
    space = dict(vars(sys.modules[function.__module__]))
    try:
        exec(compile(ast.fix_missing_locations(copy.deepcopy(tree)), f"<changed {function.__name__}>", "exec"), space)
    except Exception:
        return None
    return space[function.__name__]


def _changes(tree, hidden=()):
    """Yield (name, changed copy of the tree) for each single change. hidden: parameters that learners are not given."""
    nodes = list(ast.walk(tree))
    parameters = [a.arg for node in nodes if isinstance(node, ast.arguments) for a in node.args]
    parameters = [name for name in parameters if name != "self" and name not in hidden]
    annotations = {id(part) for node in nodes for part in _annotations_and_defaults(node)}
    for number, node in enumerate(nodes):
        if id(node) in annotations:
            continue
        for name, change in _changes_of(node, parameters):
            changed = copy.deepcopy(tree)
            change(list(ast.walk(changed))[number])
            yield f"line {getattr(node, 'lineno', 0)}: {name}", changed


def _annotations_and_defaults(node):
    roots = []
    if isinstance(node, ast.FunctionDef):
        roots = [node.args, node.returns, *node.decorator_list]
    elif isinstance(node, ast.ClassDef):
        roots = [*node.bases, *node.decorator_list]
    elif isinstance(node, ast.AnnAssign):
        roots = [node.annotation]
    return (part for root in roots if root is not None for part in ast.walk(root))


def _changes_of(node, parameters):
    """Yield (name, function that changes the same node of a copy) for each change that this node allows."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for other in OPERATORS.get(type(node.op), ()):
            yield f"{type(node.op).__name__} to {other.__name__}", lambda n, o=other: setattr(n, "op", o())
    if isinstance(node, ast.BinOp):
        yield "left operand only", lambda n: _become(n, n.left)
        yield "right operand only", lambda n: _become(n, n.right)
        if isinstance(node.op, ast.Sub | ast.Div | ast.Pow | ast.MatMult):
            yield "operands swapped", lambda n: n.__dict__.update(left=n.right, right=n.left)
    if isinstance(node, ast.Compare):
        for other in OPERATORS.get(type(node.ops[0]), ()):
            yield f"{type(node.ops[0]).__name__} to {other.__name__}", lambda n, o=other: n.ops.__setitem__(0, o())
    if isinstance(node, ast.UnaryOp):
        yield "sign dropped", lambda n: _become(n, n.operand)
    if isinstance(node, ast.Constant):
        yield from _other_constants(node)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in parameters:
        for other in parameters:
            if other != node.id:
                yield f"{node.id} to {other}", lambda n, o=other: setattr(n, "id", o)
    if isinstance(node, ast.Call):
        yield from _other_calls(node)
    if isinstance(node, ast.Return) and node.value is not None:
        for name in ("detach", "double", "neg"):
            yield f"result.{name}()", lambda n, m=name: setattr(n, "value", _method(n.value, m))
    if isinstance(node, ast.IfExp):
        yield "first branch only", lambda n: _become(n, n.body)
        yield "second branch only", lambda n: _become(n, n.orelse)
    if isinstance(node, ast.If):
        yield "condition true", lambda n: setattr(n, "test", ast.Constant(True))
        yield "condition false", lambda n: setattr(n, "test", ast.Constant(False))
    if isinstance(node, ast.Expr):
        yield "statement dropped", lambda n: _become(n, ast.Pass())
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name | ast.BinOp | ast.Attribute):
        for step in (ast.Add, ast.Sub):
            yield (
                f"index {step.__name__} 1",
                lambda n, s=step: setattr(n, "slice", ast.BinOp(n.slice, s(), ast.Constant(1))),
            )


def _other_constants(node):
    if isinstance(node.value, bool):
        yield f"{node.value} to {not node.value}", lambda n: setattr(n, "value", not n.value)
    elif isinstance(node.value, int):
        for step in (1, -1):
            yield f"{node.value} to {node.value + step}", lambda n, s=step: setattr(n, "value", n.value + s)
    elif isinstance(node.value, float):
        for factor in (2.0, 0.5):
            yield f"{node.value} times {factor}", lambda n, f=factor: setattr(n, "value", n.value * f)


def _other_calls(node):
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    attribute = "attr" if isinstance(function, ast.Attribute) else "id"
    for other in OTHER_NAMES.get(name, ()):
        yield f"{name} to {other}", lambda n, o=other: setattr(n.func, attribute, o)
    library = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") in ("torch", "F", "math", "nn")
    if name in DROPPED and isinstance(function, ast.Attribute) and not library:
        yield f".{name}() dropped", lambda n: _become(n, n.func.value)
    elif name in DROPPED and node.args:
        yield f"{name}() dropped", lambda n: _become(n, n.args[0])
    if len(node.args) >= 2:
        yield f"first arguments of {name} swapped", lambda n: n.args.__setitem__(slice(0, 2), n.args[1::-1])
    for index, keyword in enumerate(node.keywords):
        yield f"{name}: {keyword.arg} dropped", lambda n, i=index: n.keywords.pop(i)


def _become(node, other):
    """Turn a node into another one, in its place."""
    kept = {key: value for key, value in vars(node).items() if key in ("lineno", "col_offset")}
    node.__class__, node.__dict__ = other.__class__, {**vars(other), **kept}


def _method(value, name):
    return ast.Call(ast.Attribute(value, name, ast.Load()), [], [])


# Right after all?


def is_equivalent(exercise, made, seeds=range(3)) -> bool:
    """True if a changed version does the same as the reference on all legal inputs."""
    if exercise.id in DRIVE:
        pairs = (_driven(exercise, made, seed) for seed in seeds)
    else:
        pairs = _applied(exercise, made, seeds)
    return all(_agree(expected, got) for expected, got in pairs)


def _driven(exercise, made, seed):
    return tuple(_outcome(lambda f=f: DRIVE[exercise.id](f, Case(seed))) for f in (exercise.reference, made))


def _applied(exercise, made, seeds):
    if exercise.id not in LEGAL:
        yield 0, 1
        return
    for seed in seeds:
        for inputs in LEGAL[exercise.id](Case(seed)):
            expected, got = ([*map(_copied, inputs)] for _ in range(2))
            results = _outcome(lambda: exercise.reference(*expected)), _outcome(lambda: made(*got))  # noqa: B023
            yield results
            if exercise.gradients:
                yield tuple(_slopes(f, inputs) for f in (exercise.reference, made))
            yield expected, got  # nothing but what the reference changes may be changed


def _copied(value):
    if isinstance(value, torch.Generator):
        twin = torch.Generator()
        twin.set_state(value.get_state())
        return twin
    return value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def _outcome(call):
    try:
        with state_kept(), limited_output(), limited_time():
            return call()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"raises {type(error).__name__}"


def _slopes(function, inputs):
    """Return the gradients of the sum of what comes back, with respect to the inputs."""
    own = [_copied(value) for value in inputs]
    floats = [v.requires_grad_() for v in own if isinstance(v, torch.Tensor) and v.is_floating_point()]
    floats += [p for v in own if isinstance(v, nn.Module) for p in v.parameters()]
    result = _outcome(lambda: function(*own))
    outputs = [v for v in (result if isinstance(result, tuple) else (result,)) if isinstance(v, torch.Tensor)]
    outputs = [v for v in outputs if v.requires_grad]
    if not outputs:
        return "no gradient"
    found = torch.autograd.grad(sum(v.sum() for v in outputs), floats, allow_unused=True)
    return tuple(0.0 if g is None else g for g in found)


def _agree(expected, got) -> bool:
    if isinstance(expected, torch.Tensor) and isinstance(got, torch.Tensor):
        if expected.shape != got.shape or expected.dtype != got.dtype:
            return False
        return torch.allclose(expected.double(), got.double(), 1e-4, 1e-6, equal_nan=True)
    if isinstance(expected, list | tuple):
        return type(expected) is type(got) and len(expected) == len(got) and all(map(_agree, expected, got))
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and expected.keys() == got.keys()
            and all(_agree(expected[k], got[k]) for k in expected)
        )
    if isinstance(expected, nn.Module):
        return isinstance(got, nn.Module) and _agree(expected.state_dict(), got.state_dict())
    if isinstance(expected, torch.Generator):
        return expected.get_state().equal(got.get_state())
    if isinstance(expected, float) and isinstance(got, int | float):
        return abs(expected - got) <= 1e-6 + 1e-4 * abs(expected) or expected != expected and got != got
    if isinstance(expected, int | str | bool | None):
        return expected == got
    return True  # optimizers, functions: what they do is seen in what comes back
