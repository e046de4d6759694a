set -eu
mkdir -p etc d/s; echo a >etc/a; echo b >d/s/b; ln d/s/b d/c; ln -s a etc/l; touch -h -d @1400000000 etc/a d/s/b etc/l d/s d etc; tar cf t.tar etc d --owner=0 --group=0; echo n >etc/a; touch -d @1400000000.5 etc/a; tar --format=pax -czf u.tar.gz etc; rm -rf etc d
