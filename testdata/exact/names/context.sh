set -eu

p=$(printf 'l%.0s' $(seq 95)); mkdir -p long$p/$p/$p; echo x >long$p/$p/$p/f; echo y >long$p/e; echo z > ü$(printf 'u%.0s' $(seq 110)); echo w > w$(printf 'v%.0s' $(seq 140)); touch neg far big; for n in 97 98 99 100 101 102; do f=$(printf 'k%.0s' $(seq $n)); mkdir -p s/$f; touch s/$f/1; done; mkdir -p a/b/c/d/e/f/$(printf 'm%.0s' $(seq 99)); mkdir -p $(printf 'n%.0s' $(seq 154))/x $(printf 'o%.0s' $(seq 155))/x $(printf 'p%.0s' $(seq 156))/x
