from nasray.reports.sections.experiment import experiment_section


def test_every_key_that_says_something_is_listed(staged):
    html = experiment_section(staged).html
    for key, value in (("searcher.fine_after", "80"), ("budget.gmacs", "91.0"), ("name", "staged"), ("format", "2")):
        assert f"<td class='text'>{key}</td><td class='text'>{value}</td>" in html
