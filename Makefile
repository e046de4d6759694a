# make demo    builds kiln, builds testdata/demo with it, and runs the image
# make test    formats, lints and tests everything, as CI does
# make test-kernels  tries kiln on Debian's kernels and on file systems of many kinds (docs/reference/platforms.md);
#              ONLY='kernels golden', KERNELS='5.10 6.1', OUT=FILE, JOBS=2, all optional
# make bench   measures kiln beside the other builders that are installed (bench/README.md);
#              ROUNDS=5 ONLY=w1,run BUILDERS=kiln,buildah OUT=DIR WORK=DIR, all optional
#
# The first three install the Debian packages that they need and that are missing. What `make bench`
# compares with is installed by `testdata/tools/setup bench`.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
KILN := $(TARGET)/release/kiln
BASE := $(TARGET)/demo/base

.PHONY: all build demo test test-kernels lint bench clean

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

test:
	testdata/tools/setup test
	$(MAKE) lint
	$(CARGO) test --workspace --locked
	python3 -m unittest discover -s bench -t .
	python3 -m unittest discover -s testdata/tools/kernels -t testdata/tools

# A static binary runs whatever the guest's libraries are.
test-kernels:
	testdata/tools/setup kernels
	RUSTFLAGS='-C target-feature=+crt-static' \
	    $(CARGO) build --profile guest --locked -p kiln-cli --target x86_64-unknown-linux-gnu
	testdata/tools/kernels/run $(ONLY) --kiln $(TARGET)/x86_64-unknown-linux-gnu/guest/kiln \
	    $(KERNELS:%=--kernel %) $(if $(OUT),--out $(OUT)) $(if $(JOBS),--jobs $(JOBS))

bench:
	$(CARGO) build --release --locked -p kiln-cli
	bench/run --kiln $(KILN) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY)) \
	    $(if $(BUILDERS),--builders $(BUILDERS)) $(if $(OUT),--out $(OUT)) $(if $(WORK),--work $(WORK))

clean:
	$(CARGO) clean
