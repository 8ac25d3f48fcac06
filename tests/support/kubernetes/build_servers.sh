#!/usr/bin/env bash
# Prints the directory that holds kube-apiserver, kube-controller-manager and etcd, and builds them there first where they
# are missing: from Debian 12's own packages, in about four minutes, once per machine. Nothing is installed, nothing of the
# system is changed, and no root is needed. With --find nothing is built.
#
#   KUBEBUILDER_ASSETS   a directory that already has kube-apiserver and etcd; wins over everything
#   XDG_CACHE_HOME       where the build is kept (left out: ~/.cache)
#
# The source is Kubernetes 1.20.2, which Debian's Go 1.19 builds with three mends; each is explained where it is made.
set -euo pipefail

RELEASE=bookworm
RECIPE=1 # part of the cache's key, with the version of the source: count it up when the build below changes
VERSION=v1.20.2

say() { printf 'build_servers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    for binary in kube-apiserver etcd; do
        [ -x "$KUBEBUILDER_ASSETS/$binary" ] || die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no $binary"
    done
    echo "$KUBEBUILDER_ASSETS"
    exit
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo-planner/kubernetes
mkdir -p "$cache"
exec 9>"$cache/lock"
[ "${1:-}" = --find ] || flock 9
built=$(find "$cache" -mindepth 1 -maxdepth 1 -name "*-$RECIPE" | sort -V | tail -n 1)
if [ -n "$built" ]; then
    echo "$built"
    exit
fi
[ "${1:-}" != --find ] || die "it is not built yet: run tests/support/kubernetes/build_servers.sh once"

for tool in apt-get dpkg-deb dpkg-source patch; do
    command -v "$tool" >/dev/null || die "$tool is needed (dpkg-dev and patch on Debian 12); or set KUBEBUILDER_ASSETS"
done
rm -rf "$cache"/build.* # of a build that was killed: this one has the lock
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

say "fetching the source and the Go compiler of Debian 12"
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="$RELEASE" '$2 == release && $3 == "main" {print "deb", $0; print "deb-src", $0}' | sort -u >sources.list
[ -s sources.list ] || die "this machine has no package sources of Debian 12 ($RELEASE): set KUBEBUILDER_ASSETS"
mkdir -p apt/lists/partial apt/archives/partial
own_apt() { # apt with lists and a cache of its own
    local command=$1
    shift
    "$command" -qq -o APT::Sandbox::User="$(id -un)" -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt" \
        -o Acquire::Retries=3 "$@"
}
own_apt apt-get update >&2
source=$(own_apt apt-cache showsrc --only-source kubernetes | awk '$1 == "Version:" {print $2}' | sort -V | tail -n 1)
[[ $source == 1.20.* ]] || die "the source of Debian 12 is Kubernetes '$source', and this builds 1.20: set KUBEBUILDER_ASSETS"
own_apt apt-get download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev etcd-server >&2
own_apt apt-get source --download-only "kubernetes=$source" >&2
for package in ./*.deb; do dpkg-deb --extract "$package" tools; done

export GOROOT=$work/tools/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=$work/gocache
export GO111MODULE=off GOPROXY=off GOFLAGS= CGO_ENABLED=0
PATH=$GOROOT/bin:$PATH
kubernetes=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$(dirname "$kubernetes")"
dpkg-source --no-check -x ./kubernetes_*.dsc "$kubernetes" >&2
cd "$kubernetes"

# Mend 1: the vendored reflect2 crashes in maps when built by Go 1.18 or later; Debian has a newer one.
reflect2=vendor/github.com/modern-go/reflect2
rm -rf "$reflect2"
cp -a "$work/tools/usr/share/gocode/src/github.com/modern-go/reflect2" "$reflect2"

# Mend 2: the OpenAPI definitions are generated, and not in the source package.
say "generating the OpenAPI definitions"
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
inputs=$(grep --recursive --files-with-matches --include='*.go' '+k8s:openapi-gen=' pkg staging/src/k8s.io 2>/dev/null |
    grep -v -e _test.go -e zz_generated -e /testdata/ -e code-generator -e sample-apiserver |
    xargs -n 1 dirname | sort -u |
    sed -e 's,^staging/src/k8s.io/,k8s.io/kubernetes/vendor/k8s.io/,;t' -e 's,^,k8s.io/kubernetes/,' | paste -s -d ,)
"$work/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$work/api-violations" >/dev/null

# Mend 3: without a version the server calls itself v0.0.0, and clients compare versions.
vendored=k8s.io/kubernetes/vendor/k8s.io
flags="-s -w"
for package in component-base client-go/pkg; do
    flags+=" -X $vendored/$package/version.gitVersion=$VERSION -X $vendored/$package/version.gitMajor=1"
    flags+=" -X $vendored/$package/version.gitMinor=20"
done
mkdir "$work/bin"
for binary in kube-apiserver kube-controller-manager; do
    say "building $binary"
    go build -p 2 -ldflags "$flags" -o "$work/bin/$binary" "./cmd/$binary"
done
cp "$work/tools/usr/bin/etcd" "$work/bin/"
mv "$work/bin" "$cache/$source-$RECIPE"
echo "$cache/$source-$RECIPE"
