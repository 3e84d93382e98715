// SPDX-License-Identifier: Apache-2.0
#include "loadtest/chaos/os_crash/image.h"

#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "loadtest/harness/build_paths.h"
#include "loadtest/harness/process.h"
#include "loadtest/harness/temp_dir.h"

namespace mcs::loadtest {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// In the order in which they need each other.
constexpr const char* kKernelModules[] = {"net/core/failover",
                                          "drivers/net/net_failover",
                                          "drivers/virtio/virtio_ring",
                                          "drivers/virtio/virtio",
                                          "drivers/virtio/virtio_pci_legacy_dev",
                                          "drivers/virtio/virtio_pci_modern_dev",
                                          "drivers/virtio/virtio_pci",
                                          "drivers/net/virtio_net"};
constexpr const char* kHttpdModules[] = {"mpm_event", "authz_core", "mime", "dir"};

// Servers that end are not started again: they must not. {0}: kernel modules.
constexpr const char* kInit = R"sh(#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
for m in{0}; do insmod /mod/$m.ko; done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
node=$(sed 's/.*mcs.node=\([0-9]*\).*/\1/' /proc/cmdline)
for d in /sys/bus/pci/devices/*; do
  [ "$(cat $d/vendor)$(cat $d/device)" = 0x1af40x1110 ] && bar=$d/resource2
done
chmod 666 $bar
gsm-emu attach $bar --mode 0666 || poweroff -f
for f in /etc/nginx.conf /etc/httpd.conf; do sed -i "s/NODE/$node/" $f; done
nginx -c /etc/nginx.conf &
apache2 -f /etc/httpd.conf -DFOREGROUND &
exec nc -ll -p 9999 -e /bin/sh
)sh";

constexpr const char* kNginxConf = R"(daemon off;
user www-data;
worker_processes 1;
error_log stderr notice;
pid /run/nginx.pid;
load_module /mod/ngx_mcs_module.so;
events {{ worker_connections 256; }}
http {{
  access_log off;
  types {{ text/plain txt; }}
  keepalive_requests 1000000000;
  mcs_domain {0} node=NODE hang_limit={1}ms;
  server {{
    listen 80;
    root /site;
    mcs_cache_key_base site;
    location / {{ mcs_cache on; }}
  }}
}}
)";

constexpr const char* kHttpdConf = R"(ServerRoot /run
ServerName localhost
PidFile /run/httpd.pid
DefaultRuntimeDir /run
ErrorLog /dev/console
LogLevel notice
LoadModule mcs_module /mod/mod_mcs_apache.so
User www-data
Group www-data
ServerLimit 1
StartServers 1
ThreadsPerChild 12
ThreadLimit 12
MinSpareThreads 1
MaxSpareThreads 12
MaxRequestWorkers 12
TypesConfig /etc/mime.types
MaxKeepAliveRequests 0
Listen 8080
McsDomain {0} node=NODE hang_limit={1}ms
DocumentRoot /site
<Directory /site>
  Require all granted
  McsCache On
  McsCacheKeyBase site
</Directory>
)";

Result<std::string> output_of(const std::vector<std::string>& argv,
                              const fs::path& directory = {}) {
  ProcessOptions options;
  options.timeout = milliseconds(300'000);
  options.directory = directory;
  auto done = run_process(argv, options);
  if (!done) return tl::unexpected(done.error());
  if (!done->ok()) return fail("{}: {}", argv[0], done->describe());
  return done->out;
}

fs::path find_kernel(const fs::path& directory) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory / "boot", ignored)) {
    if (entry.path().filename().string().starts_with("vmlinuz-")) return entry.path();
  }
  return {};
}

Result<fs::path> get_kernel(const fs::path& directory) {
  if (auto kernel = find_kernel(directory); !kernel.empty()) return kernel;
  const auto depends = output_of({"apt-cache", "depends", "linux-image-cloud-amd64"});
  if (!depends) return tl::unexpected(depends.error());
  const std::size_t at = depends->find("linux-image-", depends->find("Depends: "));
  if (at == std::string::npos) {
    return fail(
        "linux-image-cloud-amd64 is not known to apt: run 'apt-get update', or unpack a kernel "
        "package below {}",
        directory.string());
  }
  const std::string package = depends->substr(at, depends->find_first_of(" \n", at) - at);
  fs::create_directories(directory);
  if (auto got = output_of({"apt-get", "download", package}, directory); !got) {
    return tl::unexpected(got.error());
  }
  const std::string unpack =
      "for f in " + package + "_*.deb; do dpkg-deb -x \"$f\" .; rm \"$f\"; done";
  if (auto done = output_of({"sh", "-c", unpack}, directory); !done)
    return tl::unexpected(done.error());
  auto kernel = find_kernel(directory);
  return kernel.empty() ? fail("{} has no kernel in it", package) : Result<fs::path>(kernel);
}

class Builder {
 public:
  explicit Builder(fs::path root) : root_(std::move(root)) {}

  void copy(const fs::path& from, const fs::path& to) {
    const fs::path target = root_ / to.relative_path();
    std::error_code error;
    fs::create_directories(target.parent_path(), error);
    if (!fs::exists(target)) fs::copy_file(from, target, error);
    if (error) missing_ += " " + from.string();
  }
  // With the libraries that it needs, without what a debugger needs.
  void program(const fs::path& from, const fs::path& to) {
    if (from.empty() || !fs::exists(from)) {
      missing_ += " " + to.filename().string();
      return;
    }
    copy(from, to);
    static_cast<void>(
        output_of({"strip", "--strip-unneeded", (root_ / to.relative_path()).string()}));
    const auto needed = output_of({"ldd", from.string()});
    if (!needed) return;
    std::istringstream words(*needed);
    for (std::string word; words >> word;) {
      if (word.starts_with('/')) copy(word, word);
    }
  }
  void text(const fs::path& to, const std::string& content) {
    if (!write_file(root_ / to.relative_path(), content)) missing_ += " " + to.string();
  }
  const std::string& missing() const { return missing_; }

 private:
  fs::path root_;
  std::string missing_;
};

}  // namespace

Result<Image> make_image(const ImageOptions& options) {
  const auto kernel = get_kernel(options.kernel_dir);
  if (!kernel) return tl::unexpected(kernel.error());
  const fs::path root = options.directory / "root";
  std::error_code ignored;
  for (const char* name :
       {"proc", "sys", "dev", "tmp", "run", "etc", "bin", "var/log/nginx", "var/lib/nginx"}) {
    fs::create_directories(root / name, ignored);
  }
  Builder builder(root);
  builder.copy("/bin/busybox", "/bin/busybox");
  builder.program(find_program("nginx"), "/bin/nginx");
  builder.program(find_program("apache2"), "/bin/apache2");
  for (const char* tool : {"gsm-emu", "mcs-agent", "mcsctl", "mcs-os-holder"}) {
    builder.program(tool_file(tool), fs::path("/bin") / tool);
  }
  for (const char* module : {"ngx_mcs_module.so", "mod_mcs_apache.so"}) {
    builder.program(module_file(module), fs::path("/mod") / module);
  }
  std::string httpd_conf;
  for (const std::string module : kHttpdModules) {
    const std::string file = "mod_" + module + ".so";
    builder.program("/usr/lib/apache2/modules/" + file, "/mod/" + file);
    httpd_conf += fmt::format("LoadModule {}_module /mod/{}\n", module, file);
  }
  const std::string release = kernel->filename().string().substr(std::string("vmlinuz-").size());
  const fs::path modules = options.kernel_dir / "lib/modules" / release / "kernel";
  std::string inserted;
  for (const std::string module : kKernelModules) {
    const std::string name = fs::path(module).filename();
    builder.copy(modules / (module + ".ko"), "/mod/" + name + ".ko");
    inserted += " " + name;
  }
  builder.text("/etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n");
  builder.text("/etc/group", "root:x:0:\nwww-data:x:33:\n");
  builder.text("/etc/mime.types", "text/plain txt\n");
  builder.text("/etc/nginx.conf",
               fmt::format(fmt::runtime(kNginxConf), kGuestDomain, options.hang_limit_ms));
  builder.text("/etc/httpd.conf", httpd_conf + fmt::format(fmt::runtime(kHttpdConf), kGuestDomain,
                                                           options.hang_limit_ms));
  builder.text("/init", fmt::format(fmt::runtime(kInit), inserted));
  if (!builder.missing().empty()) {
    return fail(
        "cannot make the guests' files without{}: run it as './mcs chaos os-crash', which installs "
        "and builds what it needs",
        builder.missing());
  }
  fs::permissions(root / "init", fs::perms(0755), ignored);
  // With their times, which validators are made of.
  const auto copied = output_of({"cp", "-a", options.site.string(), (root / "site").string()});
  if (!copied) return tl::unexpected(copied.error());
  const Image image{*kernel, options.directory / "files.cpio"};
  const auto packed = output_of(
      {"sh", "-c", "find . | cpio -o -H newc --quiet >'" + image.files.string() + "'"}, root);
  if (!packed) return tl::unexpected(packed.error());
  fs::remove_all(root, ignored);
  return image;
}

}  // namespace mcs::loadtest
