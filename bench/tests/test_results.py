import os
import tempfile
import unittest

from bench import report
from bench.results import Figure, Results, Sample, load, ratio, seconds
from bench.rows import in_turn


def some_results():
    results = Results('a machine', {'kiln': 'kiln', 'buildah': 'buildah'}, {'kiln': 'kiln 1', 'buildah': 'buildah 2'})
    for value in (0.5, 0.4, 0.9):
        results.add('w1-cold', 'kiln', Sample(value, 40 << 20))
    results.add('w1-cold', 'buildah', Sample(20.0, 119 << 20))
    results.add('w1-cached', 'kiln', Sample(0.03, 50 << 20))
    return results


class ResultsTest(unittest.TestCase):
    def test_the_middle_of_an_even_number_lies_between(self):
        self.assertEqual(Figure.of([4.0, 1.0, 2.0, 3.0]), Figure(2.5, 1.0, 4.0, 4))

    def test_times_and_ratios_are_short(self):
        self.assertEqual([seconds(value) for value in (0.01234, 0.456, 1.5, 12.34)],
                         ['12.3 ms', '456 ms', '1.50 s', '12.3 s'])
        self.assertEqual([ratio(value, 2.0) for value in (1.0, 5.0, 50.0)], ['×0.5', '×2.5', '×25'])

    def test_what_is_saved_is_loaded(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, 'results.json')
            self.assertEqual(load(path), Results())
            some_results().save(path)
            self.assertEqual(load(path), some_results())

    def test_rows_measured_anew_lose_only_those_builders_samples(self):
        results = some_results()
        results.forget('w1-cold', [type('Builder', (), {'name': 'kiln'})])
        self.assertIsNone(results.time('w1-cold', 'kiln'))
        self.assertEqual(results.time('w1-cold', 'buildah').median, 20.0)

    def test_every_builder_begins_a_round(self):
        self.assertEqual([in_turn('abc', number) for number in range(4)], ['abc', 'bca', 'cab', 'abc'])
        self.assertEqual(in_turn([], 1), [])

    def test_the_table_has_times_ratios_and_the_most_memory(self):
        table = report.table(some_results())
        self.assertIn('| 50 `RUN` steps, cold | 500 ms (400 ms to 900 ms) | 20.0 s ×40 |', table)
        self.assertIn('| the same, all cached | 30.0 ms | – |', table)
        self.assertIn('| **most of all** | 50 MiB | 119 MiB |', table)
