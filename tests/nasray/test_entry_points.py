"""What `import nasray` offers stays what it is, whatever is imported beside it."""

import nasray
import nasray.searching


def test_search_is_a_function_every_time():
    assert callable(nasray.search)
    assert nasray.search is nasray.search
    assert nasray.search is nasray.searching.search
