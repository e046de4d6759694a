set -eu
mkdir -p t/s; echo a >t/a; ln t/a t/b; ln t/a t/c; ln t/a t/s/d; echo o >t/s/o
