# make demo    builds kiln, builds testdata/demo with it, and runs the image
# make test    formats, lints and tests everything, as CI does
# make test-kernels  tries kiln on Debian's and Ubuntu's kernels and on file systems of many kinds (docs/reference/platforms.md);
#              ONLY='kernels golden', KERNELS='5.10 6.1', OUT=FILE, JOBS=2, all optional
# make test-containers  tries kiln in containers of many settings, and compares it with root (docs/reference/platforms.md);
#              ONLY='matrix golden', SETTINGS='droot restr', OUT=FILE, JOBS=2, ROUNDS=3, all optional
# make soak    builds with many clients of kiln serve at once, half of which are killed, and with many kilns on one
#              store; nothing may stay of them (docs/reference/serve.md); MINUTES=15 BUILDS=200, all optional
# make bench   measures kiln beside the other builders that are installed (bench/README.md);
#              ROUNDS=5 ONLY=w1,run BUILDERS=kiln,buildah OUT=DIR WORK=DIR, all optional
#
# make install      installs target/release/kiln, its completions and manual pages; PREFIX=/usr/local DESTDIR=
#                   KILN=FILE (the binary), all optional. make uninstall removes them
# make dist         builds the static binary target/dist/ARCH/kiln, linked as target/dist/kiln; TRIPLE=TARGET
# make dist-aarch64 builds the one for arm64 on an amd64 machine, with Debian's cross compilers
# make deb          makes the Debian package target/dist/kiln_VERSION_ARCH.deb of it, with cargo-deb
# make image        builds the image `kiln` of it, with this machine's certificates: CERTIFICATES=DIRECTORY
# make test-dist    tests the static binary, the package and the image; builds the binary twice
#
# The first three install the Debian packages that they need and that are missing. What `make bench`
# compares with is installed by `testdata/tools/setup bench`.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
KILN := $(TARGET)/release/kiln
BASE := $(TARGET)/demo/base
GUEST := $(TARGET)/x86_64-unknown-linux-gnu/guest/kiln

PREFIX ?= /usr/local
CERTIFICATES ?= /etc/ssl/certs
SHARE = $(DESTDIR)$(PREFIX)/share
# The kiln that describes itself: another one where $(KILN) is for another machine.
SELF ?= $(KILN)
CARGO_DEB := $(TARGET)/tools/bin/cargo-deb

.PHONY: all build demo test test-containers test-kernels soak guest lint bench install uninstall dist dist-aarch64 deb image \
    test-dist clean

all: build

build:
	testdata/tools/setup demo
	$(CARGO) build --release --locked -p kiln-cli

demo: build $(BASE)/index.json
	$(KILN) build --build-context base=oci-layout://$(BASE) -t kiln-demo testdata/demo
	$(KILN) run --rm kiln-demo

$(BASE)/index.json: testdata/tools/mkbase
	rm -rf $(BASE)
	mkdir -p $(BASE)
	testdata/tools/mkbase $(BASE).tar
	tar -xf $(BASE).tar -C $(BASE)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

test:
	testdata/tools/setup test
	$(MAKE) lint
	$(CARGO) test --workspace --locked
	python3 -m unittest discover -s bench -t .
	python3 -m unittest discover -s testdata/tools/kernels -t testdata/tools
	python3 -m unittest discover -s testdata/tools/containers -t testdata/tools

# A static binary runs whatever the libraries of a guest or a container are.
guest:
	RUSTFLAGS='-C target-feature=+crt-static' \
	    $(CARGO) build --profile guest --locked -p kiln-cli --target x86_64-unknown-linux-gnu

test-kernels:
	testdata/tools/setup kernels
	$(MAKE) guest
	testdata/tools/kernels/run $(ONLY) --kiln $(GUEST) \
	    $(KERNELS:%=--kernel %) $(if $(OUT),--out $(OUT)) $(if $(JOBS),--jobs $(JOBS))

test-containers:
	testdata/tools/setup test
	$(MAKE) guest
	testdata/tools/containers/run $(or $(ONLY),all) --kiln $(GUEST) $(SETTINGS:%=--setting %) \
	    $(if $(OUT),--out $(OUT)) $(if $(JOBS),--jobs $(JOBS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	    $(if $(KANIKO),--kaniko $(KANIKO))

# The clients are processes of the test program. The store's own test is smaller in `make test`.
soak: build
	KILN_TEST_SERVE_SECONDS=$$(($(or $(MINUTES),15) * 60)) $(CARGO) test --release --locked -p kiln-cli --test serve \
	    -- --exact many_clients_at_once --nocapture
	$(MAKE) $(BASE)/index.json
	testdata/tools/soak $(KILN) $(BASE) --builds $(or $(BUILDS),200)

bench: dist
	bench/run --kiln target/dist/kiln $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY)) \
	    $(if $(BUILDERS),--builders $(BUILDERS)) $(if $(OUT),--out $(OUT)) $(if $(WORK),--work $(WORK))

install:
	install -D -m 755 $(KILN) $(DESTDIR)$(PREFIX)/bin/kiln
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
	    $(SHARE)/fish/vendor_completions.d
	$(SELF) man $(SHARE)/man/man1
	$(SELF) completion bash >$(SHARE)/bash-completion/completions/kiln
	$(SELF) completion zsh >$(SHARE)/zsh/site-functions/_kiln
	$(SELF) completion fish >$(SHARE)/fish/vendor_completions.d/kiln.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/kiln $(SHARE)/man/man1/kiln.1 $(SHARE)/man/man1/kiln-*.1 \
	    $(SHARE)/bash-completion/completions/kiln $(SHARE)/zsh/site-functions/_kiln \
	    $(SHARE)/fish/vendor_completions.d/kiln.fish

dist:
	testdata/tools/dist $(TRIPLE)

dist-aarch64:
	testdata/tools/dist-aarch64

deb: dist $(CARGO_DEB)
	rm -rf target/dist/root
	$(MAKE) install KILN=target/dist/kiln SELF=target/dist/kiln PREFIX=/usr DESTDIR=target/dist/root
	rm -f target/dist/kiln_*.deb
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
	    $(CARGO_DEB) --quiet --package kiln-cli --no-build --no-strip --output target/dist

$(CARGO_DEB):
	$(CARGO) install --locked --root $(TARGET)/tools cargo-deb

image: dist
	target/dist/kiln build --build-context certificates=$(CERTIFICATES) -t kiln .

test-dist: deb
	testdata/tools/test-dist

clean:
	$(CARGO) clean
