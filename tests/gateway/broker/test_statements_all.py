"""Each of the 62 statements about what brokers get wrong has a test that bears its number."""

import re
from pathlib import Path


def test_every_statement_has_a_test_that_bears_its_number():
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_statements_*.py")]
    found = {int(number) for text in texts for number in re.findall(r"^def test_s(\d\d)_", text, re.MULTILINE)}
    assert found == set(range(1, 63))
