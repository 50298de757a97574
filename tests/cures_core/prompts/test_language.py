from __future__ import annotations

import json
from pathlib import Path

import pytest

from cures_core.config.data import DataConfig
from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.prompts import load_prompts
from cures_core.prompts.language import other_language, read_data
from tests.cures_core.prompts.files import loaded, reasons
from tests.shared_data import shared_file

SENTENCES = {
    "de": ("Anna hat 24 Äpfel und kauft 12 weitere. Wie viele Äpfel hat sie jetzt?",
           "Finde alle reellen Zahlen $x$ mit $x^2=4$.",
           "Ein Zug fährt 60 km pro Stunde. Wie weit kommt er in 5 Stunden?",
           "Bestimme den größten gemeinsamen Teiler von 84 und 36."),
    "fr": ("Anne a 24 pommes et en achète 12 de plus. Combien de pommes a-t-elle maintenant?",
           "Trouver tous les nombres réels $x$ tels que $x^2=4$.",
           "Calculer la somme des entiers de 1 à 100."),
    "es": ("Ana tiene 24 manzanas y compra 12 más. ¿Cuántas manzanas tiene ahora?",
           "Encuentra todos los números reales $x$ tales que $x^2=4$.",
           "Un tren viaja a 60 millas por hora. ¿Qué distancia recorre en 5 horas?"),
    "it": ("Anna ha 24 mele e ne compra altre 12. Quante mele ha adesso?",),
    "pt": ("Ana tem 24 maçãs e compra mais 12. Quantas maçãs ela tem agora?",),
    "nl": ("Anna heeft 24 appels en koopt er nog 12. Hoeveel appels heeft ze nu?",),
    "ru": ("У Анны 24 яблока, и она покупает ещё 12. Сколько у неё теперь яблок?", "Найдите все действительные числа."),
    "zh": ("安娜有24个苹果,她又买了12个。她现在有多少个苹果?", "求所有满足条件的实数。"),
    "ja": ("アンナはりんごを24個持っていて、さらに12個買います。今いくつありますか。",),
    "ko": ("안나는 사과 24개를 가지고 있고 12개를 더 삽니다. 지금 사과가 몇 개 있습니까?",),
    "ar": ("لدى آنا 24 تفاحة واشترت 12 أخرى. كم تفاحة لديها الآن؟",),
    "pl": ("Anna ma 24 jabłka i kupuje jeszcze 12. Ile jabłek ma teraz?",),
    "tr": ("Anna'nın 24 elması var ve 12 tane daha alıyor. Şimdi kaç elması var?",),
}  # fmt: skip


def test_other_languages_are_named_and_the_own_is_left_alone() -> None:
    found = [
        (code, other_language(text, "en"), other_language(text, code)) for code, ts in SENTENCES.items() for text in ts
    ]
    missed = [code for code, flaw, _ in found if flaw is None]
    assert (len(found), missed) == (22, ["it"])  # one sentence is in doubt, so nothing is said
    assert all(flaw == ("other_language", f"{code}, not en") for code, flaw, _ in found if flaw)
    assert [own for _, _, own in found if own] == []


@pytest.mark.parametrize(
    "text",
    ["$x^2 + y^2 = z^2$", "Combien?", "7+5>3=", ""],
)
def test_a_few_words_and_formulas_say_nothing(text: str) -> None:
    assert other_language(text, "en") is None


def test_it_is_a_warning_where_a_language_is_configured(tmp_path: Path) -> None:
    rows = [{"problem": SENTENCES["de"][0], "answer": "36"}, {"problem": "How many eggs has Ann now?", "answer": "7"}]
    assert reasons(loaded(tmp_path, rows)) == {}
    warned = loaded(tmp_path, rows, language="en")
    assert (reasons(warned), len(warned.prompts)) == ({1: {"other_language"}}, 2)
    with pytest.raises(ConfigError, match=r"language = 'xx': known are af, "):
        loaded(tmp_path, rows, language="xx")


def test_public_english_sets_are_hardly_warned_of() -> None:
    """Every 20th row of three sets; docs/data.md has the count over all."""
    names = ("gsm8k_train", "math_train", "olympiadbench")
    lines = [line for n in names for line in shared_file(f"{n}.jsonl").read_text(encoding="utf-8").splitlines()[::20]]
    assert sum(other_language(json.loads(line)["problem"], "en") is not None for line in lines) <= 1


@pytest.mark.slow
def test_of_all_public_english_problems_four_are_warned_of() -> None:
    names = ("gsm8k_train", "math_train", "math500_test", "olympiadbench", "minerva_math", "svamp")
    found = [load_prompts(DataConfig(path=str(shared_file(f"{n}.jsonl")), language="en")).counts for n in names]
    assert sum(counts.get("other_language", 0) for counts in found) == 4


def test_the_model_is_read_as_data_and_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    import io
    import pickle  # noqa: TID251 (what an attacker would write)

    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(CorruptArtifact, match="not one of data alone"):
        read_data(io.BytesIO(pickle.dumps([1, Evil()])))
    assert not (tmp_path / "ran").exists()
    assert read_data(io.BytesIO(pickle.dumps([1, "a", {"b": (2.0, b"c")}]))) == [1, "a", {"b": (2.0, b"c")}]
