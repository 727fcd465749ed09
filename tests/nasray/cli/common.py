from nasray.cli import main
from nasray.cluster.reading import parse_json


def refused(capsys, *arguments):
    """The one message of a command that is refused."""
    assert main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert message.startswith("nasray: ")
    assert message.count("\n") == 1, "one line"
    return message


def figures(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return parse_json(capsys.readouterr().out, " ".join(arguments))  # NaN is no JSON
