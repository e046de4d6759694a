import unittest
from xml.etree import ElementTree

from bench import chart
from bench.results import Results
from bench.tests.test_results import some_results

SVG = '{http://www.w3.org/2000/svg}'


class ChartTest(unittest.TestCase):
    def test_bars_are_in_proportion_and_within_the_picture(self):
        root = ElementTree.fromstring(chart.svg(some_results()))
        width, height = float(root.get('width')), float(root.get('height'))
        bars = [bar for bar in root.iter(f'{SVG}rect') if 'bar' in bar.get('class')]
        self.assertEqual(len(bars), 5)
        for bar in bars:
            self.assertLessEqual(float(bar.get('x')) + float(bar.get('width')), width - chart.FIGURES)
            self.assertLess(float(bar.get('y')) + float(bar.get('height')), height)
        ours, theirs = (float(bar.get('width')) for bar in bars[:2])
        self.assertAlmostEqual(theirs / ours, 40, delta=0.5)
        texts = [text.text for text in root.iter(f'{SVG}text')]
        self.assertIn('20.0 s  ×40', texts)
        self.assertIn('119 MiB', texts)

    def test_names_are_text_and_nothing_else(self):
        results = some_results()
        results.builders['buildah'] = '<b> & co'
        texts = [text.text for text in ElementTree.fromstring(chart.svg(results)).iter(f'{SVG}text')]
        self.assertIn('<b> & co', texts)

    def test_no_results_are_an_empty_chart(self):
        ElementTree.fromstring(chart.svg(Results()))
