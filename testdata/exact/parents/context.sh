set -eu
mkdir -p x/y/z x/w; echo 1 >x/y/z/1; echo 2 >x/w/2.o; echo 3 >x/w/3; touch -d @1600000000 x/y/z x/y x/w x
