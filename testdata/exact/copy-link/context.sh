set -eu
mkdir -p d/e; echo a >a; echo b >d/b; echo c >d/e/c; touch -d @1200000000 a d/b d/e/c d/e d; tar cf t.tar d
