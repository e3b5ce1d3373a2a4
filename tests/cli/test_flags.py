"""Flags: how they are written, read, refused and described, by a command of a made-up task."""

from pathlib import Path

import pytest

from gxdistill.cli import flags
from gxdistill.errors import UserError

COMMAND = flags.Command(
    "steep",
    "make tea",
    print,
    (
        flags.Flag("leaves", "FILE", "what to steep", flags.path),
        flags.Flag("minutes", "N", "how long", flags.whole(1, 10)),
        flags.Flag("max-heat", "X", "in degrees", flags.non_negative),
        flags.Flag("cups", "NAME[,...]", "what to fill", flags.names),
        flags.Flag("water", "WATER", "of which spring", has_fields=True),
        flags.Flag("no-milk", "", "leaves it black"),
    ),
    arguments="KETTLE POT...",
    example="steep kettle pot --minutes=3",
)
PATHS = ("kettle", "pot")


def _parse(*words):
    return flags.parse(COMMAND, words)


def _refusal(*words, command=COMMAND):
    with pytest.raises(UserError) as error:
        flags.parse(command, words)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("leaves", "a/b.txt", Path("a/b.txt").absolute()),
        ("minutes", "10", 10),
        ("max-heat", "99.5", 99.5),
        ("cups", "blue, green", ("blue", "green")),
        ("water", "=", "="),
        ("water", "two words", "two words"),
    ],
)
def test_a_value_follows_its_flag_in_either_way_and_at_any_place(name, written, value):
    joined, apart = [f"--{name}={written}"], [f"--{name}", written]
    for words in (
        [*PATHS, *joined],
        [*joined, *PATHS],
        [*PATHS, *apart],
        [*apart, *PATHS],
        [PATHS[0], *apart, PATHS[1]],
        [PATHS[0], *joined, PATHS[1]],
    ):
        options = _parse(*words)
        assert getattr(options, name.replace("-", "_")) == value
        assert options.paths == [Path(path).absolute() for path in PATHS]


def test_what_is_not_given_is_none_and_a_switch_is_off():
    options = vars(_parse(*PATHS, "pan"))
    assert len(options.pop("paths")) == 3
    assert options.pop("fields") == []
    assert options.pop("no_milk") is False
    assert options == dict.fromkeys(("leaves", "minutes", "max_heat", "cups", "water"))
    assert _parse(*PATHS, "--no-milk").no_milk is True


def test_fields_are_kept_as_they_are_written():
    words = ["--water.ph", "-7", "--water.source=a=b", "--water=well", "--water.still"]
    options = _parse(*words, *(f"--minutes={n}" for n in (3, 4)), *PATHS)
    assert options.fields == ["--water.ph=-7", "--water.source=a=b", "--water.still"]
    assert options.water == "well"
    assert options.minutes == 4  # The last one holds.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minute=3"], "unknown flag --minute. Did you mean --minutes?"),  # no abbreviations
        (["--minuts", "3"], "unknown flag --minuts. Did you mean --minutes?"),
        (["--tea.ph=3"], "unknown flag --tea.ph. "),
        (["--leaves.ph=3"], "unknown flag --leaves.ph. Did you mean --leaves?"),
        (["-m"], "unknown flag -m. "),
        (["--minutes=0"], "--minutes: '0' is not a whole number from 1 to 10."),
        (["--minutes=11"], "--minutes: '11' is not"),
        (["--minutes", "-1"], "--minutes: '-1' is not"),
        (["--minutes=1.5"], "--minutes: '1.5' is not"),
        (["--minutes=many"], "--minutes: 'many' is not"),
        (["--minutes="], "--minutes: '' is not"),
        (["--minutes", "--no-milk"], "--minutes: expected one argument."),
        (["--minutes"], "--minutes: expected one argument."),
        (["--max-heat=-1"], "--max-heat: '-1' is not a non-negative number."),
        (["--max-heat=nan"], "--max-heat: 'nan' is not"),
        (["--max-heat=inf"], "--max-heat: 'inf' is not"),
        (["--max-heat=hot"], "--max-heat: 'hot' is not"),
        (["--leaves="], "--leaves: a value is missing."),
        (["--cups=a,,b"], "--cups: a value is missing."),
        (["--no-milk=1"], "--no-milk: ignored explicit argument '1'."),
    ],
)
def test_what_cannot_be_used_is_refused(words, message):
    assert _refusal(*PATHS, *words).startswith(message)


def test_too_few_arguments_or_too_many_are_refused():
    assert (
        _refusal("kettle") == "name just KETTLE POT..., as: gxdistill steep kettle pot --minutes=3"
    )
    bare = flags.Command("rest", "do nothing", print, example="rest")
    assert (
        _refusal("bed", command=bare)
        == "unexpected 'bed': rest takes flags alone, as --NAME=VALUE."
    )
    assert _refusal("--bed", command=bare) == "unknown flag --bed; gxdistill rest has none."
    single = flags.Command("fill", "fill it", print, arguments="KETTLE", example="fill kettle")
    assert _refusal("a", "b", command=single) == "name just KETTLE, as: gxdistill fill kettle"


def test_a_page_describes_each_flag_and_gives_an_example():
    lines = flags.page(COMMAND).splitlines()
    assert lines[0] == "usage: gxdistill steep KETTLE POT... [FLAGS]"
    assert "Make tea." in lines
    assert [" ".join(line.split()) for line in lines if line.startswith("  --")] == [
        "--leaves FILE what to steep",
        "--minutes N how long",
        "--max-heat X in degrees",
        "--cups NAME[,...] what to fill",
        "--water WATER of which spring",
        "--no-milk leaves it black",
    ]
    assert lines[-1] == "example: gxdistill steep kettle pot --minutes=3"
