set -eu
python3 - <<'P'
import tarfile,io
cap=b'\x01\x00\x00\x02\x00\x04\x00\x00'+b'\x00'*12
for name,caps in(('t.tar','f g'),('u.tar','g')):
    t=tarfile.open(name,'w',format=tarfile.PAX_FORMAT)
    d=tarfile.TarInfo('c');d.type=tarfile.DIRTYPE;d.mode=0o755;d.mtime=1300000000;t.addfile(d)
    for n in('f','g'):
        i=tarfile.TarInfo('c/'+n);i.size=1;i.mode=0o755;i.mtime=1300000000
        if n in caps.split(): i.pax_headers={'SCHILY.xattr.security.capability':cap.decode('latin1')}
        t.addfile(i,io.BytesIO(b'x'))
    t.close()
P
