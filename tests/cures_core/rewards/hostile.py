"""Hostile answers, generated: what a policy or a person might write to stall, crash, fool or break into a verifier."""

from __future__ import annotations

from pathlib import Path

GOLD = r"3+\sqrt{5}"
"""None of the hostile answers equals it."""


def corpus(canary: Path) -> list[str]:
    """More than 200 completions; some try to create the file `canary`."""
    boxed = [f"\\boxed{{{answer}}}" for answer in (*_numbers(), *_algebra(), *_nested(), *_unicode(), *_code(canary))]
    return [*boxed, *_marks(), *_code(canary)]


def _numbers() -> list[str]:
    towers = [("^{".join([str(b)] * h)) + "}" * (h - 1) for b in (2, 5, 9) for h in (4, 5, 6, 12, 60)]
    towers += ["^".join([str(b)] * h) for b in (3, 7) for h in (4, 6)]
    factorials = [f"({n})!" for n in ("10^6", "10^8", "10^{12}", "9^{9^9}", "3!", "10^5!")] + [
        "5" + "!" * n for n in (2, 3, 9)
    ]
    long = ["9" * n for n in (99, 299, 301, 999, 1001, 5000, 200_000)] + ["0." + "3" * n for n in (99, 900, 50_000)]
    exponents = [
        "1e999999999",
        "1e-999999999",
        "10^{10^9}",
        "10^{-10^9}",
        "2^{-2^{40}}",
        "0^{-1}",
        "1/0",
        "0/0",
        "10^{99999}",
    ]
    binomials = [r"\binom{10^9}{10^8}", r"\binom{100000}{50000}", r"10^9 \bmod 7^{10^8}", r"\gcd(9^{9^9},3)"]
    return [*towers, *factorials, *long, *exponents, *binomials]


def _algebra() -> list[str]:
    sums = [rf"\sum_{{k=1}}^{{10^{{{n}}}}}\frac{{1}}{{k^{p}}}" for n in (3, 6, 12) for p in (1, 7)]
    sums += [r"\prod_{n=1}^{100000}(n+\sqrt{n})", r"\sum_{k=1}^{\infty}\frac{\sin k}{k^2}", r"\prod_{p=1}^{9999} p!"]
    powers = [f"(x+y+z+1)^{{{n}}}" for n in (20, 80, 200, 5000)] + [r"(x+\sqrt{x+\sqrt{x+\sqrt{x}}})^{40}"]
    calculus = [
        r"\int e^{x^x}\sin(x^x)dx",
        r"\int_0^1 x^{x^{x}}dx",
        r"\lim_{x\to 0}\frac{\sin(\tan x)-\tan(\sin x)}{x^7}",
    ]
    calculus += [r"\frac{d}{dx}" * 20 + r"\tan(\tan(\tan x))", r"\int" * 40 + "x dx"]
    equations = [f"x^{{{n}}}+x+1=0" for n in (5, 17, 101)] + [r"\sin(x)^{9}+\cos(x)^{7}=x", "x^x^x=2"]
    matrices = [
        rf"\begin{{pmatrix}}{row}\end{{pmatrix}}"
        for row in ("1&" * 300 + "1", r"1\\" * 300, "1&2" + r"\\" * 99, "&" * 400)
    ]
    matrices += [rf"\begin{{pmatrix}}a&b&c\\d&e&f\\g&h&i\end{{pmatrix}}^{{{n}}}" for n in (50, 10**6, -1)]
    radicals = [r"\sqrt{1+" * n + "2" + "}" * n for n in (5, 20, 60)] + [
        "+".join(rf"\sqrt{{{p}}}" for p in range(2, 60))
    ]
    lists = [",".join(str(n) for n in range(n)) for n in (50, 250)] + [
        "{" + ",".join(rf"\sqrt{{{n}}}" for n in range(60)) + "}"
    ]
    trig = [r"\sin(" * n + "x" + ")" * n for n in (9, 90)] + ["+".join(rf"\cos^{{{n}}}({n}x)" for n in range(1, 30))]
    return [*sums, *powers, *calculus, *equations, *matrices, *radicals, *lists, *trig]


def _nested() -> list[str]:
    depths = (10, 60, 200, 450)
    pairs = (
        ("(", ")"),
        ("{", "}"),
        ("[", "]"),
        (r"\left(", r"\right)"),
        (r"\frac{1}{1+", "}"),
        ("-(", ")"),
        ("|", "|"),
    )
    return [
        opening * n + "1" + closing * n
        for n in depths
        for opening, closing in pairs
        if n * len(opening + closing) < 3000
    ]


def _unicode() -> list[str]:
    odd = [
        "7\x00",
        "\u202e5",
        "\u200b",
        "\ufeff5",
        "\U0001d7d5",
        "\ufdfa" * 400,
        "e\u0301" * 300,
        "\ud800",
        "\udfff5",
        "٣",
        "Ⅷ",
    ]
    return [*odd, "5" + "\u0336" * 500, "²" * 400, "½" * 300, "５" * 400, "−" * 500, "√" * 300, "\x1b[2J", "\r\n" * 300]


def _code(canary: Path) -> list[str]:
    create = [f"open('{canary}','w')", f"__import__('os').system('touch {canary}')", f"exec(\"open('{canary}','w')\")"]
    create += [
        f"().__class__.__base__.__subclasses__()[0]('{canary}')",
        f"\\write18{{touch {canary}}}",
        f"`touch {canary}`",
    ]
    create += [f"$(touch {canary})", f"; touch {canary}", f"eval(\"__import__('pathlib').Path('{canary}').touch()\")"]
    create += [f"1+__import__('os').system('touch {canary}')", f"\\text{{__import__('os').system('touch {canary}')}}"]
    read = [
        r"\input{/etc/passwd}",
        r"\include{/dev/zero}",
        r"\def\a{\a\a}\a",
        r"\loop\iftrue\repeat",
        "${jndi:ldap://x}",
    ]
    return [
        *create,
        *read,
        "lambda: 0",
        "__builtins__",
        "{{7*7}}",
        "<script>1</script>",
        "'; drop table x; --",
        "%s%s%n" * 50,
    ]


def _marks() -> list[str]:
    return [
        rf"\boxed{{{GOLD}}} \boxed{{",
        rf"\boxed{{{GOLD}}} \boxed{{}}",
        rf"\boxed{{{GOLD}}}" + r" \boxed{0}",
        rf"\boxed{{{GOLD}" + "{" * 500,
        rf"The answer is {GOLD}. The answer is 0.",
        rf"#### {GOLD}" + "\n#### 0",
        *("\\boxed{" * n for n in (1, 100, 50_000)),
        *("\\boxed{" * n + "1" + "}" * n for n in (100, 50_000)),
        *(
            mark * 50_000
            for mark in ("{", "}", "$", "\\", "#", "answer is ", "1,", "- ", "\\(", "\\[", "\\frac{", "^", "_{")
        ),
        "",
        " " * 100_000,
        "\n" * 100_000,
        "a" * 1_000_000,
    ]
