set -eu
echo a >a; mkdir -p d/e; echo b >d/e/b
