set -eu
mkdir t; echo f >t/f; chmod 644 t/f; echo g >t/g
