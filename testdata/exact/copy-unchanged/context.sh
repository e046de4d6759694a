set -eu
mkdir -p t/s; echo f >t/f; echo g >t/g; echo h >t/s/h; ln -s f t/l; ln t/f t/hard; mkfifo t/p; chmod 644 t/f t/g
