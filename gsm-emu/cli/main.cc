// SPDX-License-Identifier: Apache-2.0
// gsm-emu: makes multicomputers on one machine, runs commands on their nodes, and breaks them.
#include <CLI/CLI.hpp>
#include <exception>

#include "gsm-emu/cli/command.h"

namespace {

using mcs::emu::Common;

void add_place(CLI::App& app, Common& common) {
  app.add_option("--directory", common.directory, "tmpfs directory that holds domains")
      ->capture_default_str();
}

void add_json(CLI::App& app, Common& common) {
  app.add_option("--json", common.json,
                 "write the result as JSON to this file; - (or no file) is "
                 "standard output, without the text")
      ->expected(0, 1)
      ->type_name("FILE");
}

CLI::App* add_command(CLI::App& app, const char* name, const char* what, Common& common,
                      std::uint32_t* node) {
  CLI::App* command = app.add_subcommand(name, what);
  command->add_option("name", common.name, "name of the domain")->required();
  if (node != nullptr) {
    command->add_option("node", *node, "number of the node, from 0")->required();
  }
  add_place(*command, common);
  return command;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mcs::emu;
  CLI::App app{
      "Emulates multicomputers: domains of nodes that share memory.\n"
      "Exit status: 0 done; 1 done in part; 2 not done; exec: the command's."};
  app.require_subcommand(0, 1);
  Common common;
  std::uint32_t node = 0;

  UpOptions up_options;
  CLI::App* up_app = add_command(app, "up", "make a domain", common, nullptr);
  up_app->add_option("--nodes", up_options.nodes, "number of nodes, 1 to 16 [1]");
  up_app->add_option("--memory", up_options.memory, "memory of each node, such as 256M [256M]");
  up_app->add_option("--owner", up_options.owner, "user who owns it [the caller]");
  up_app->add_option("--group", up_options.group, "group of it [the owner's]");
  up_app->add_option("--mode", up_options.mode, "permission bits, octal [0600]");
  up_app->add_option("--remote-penalty", up_options.remote_penalty,
                     "how many times as long an access to another node's memory takes [1]");
  up_app->add_flag("--separate-kernels", up_options.separate_kernels,
                   "nodes judge each other by heartbeats only, as if each had its own kernel");
  up_app->add_option("--node-limit-ms", up_options.node_limit_ms,
                     "how long a node's heartbeat may stand still, ms [1000 with --separate-kernels, "
                     "else twice the hang limit]");
  up_app->add_option("--device", up_options.device,
                     "memory that several kernels map, such as a file that is a PCI device of virtual "
                     "machines; what is on it is overwritten [files in the directory]");
  add_json(*up_app, common);

  CLI::App* attach_app = app.add_subcommand(
      "attach", "make a domain that lies on a device known here, on another kernel");
  attach_app->add_option("device", up_options.device, "such as /sys/bus/pci/devices/…/resource2")
      ->required();
  attach_app->add_option("--owner", up_options.owner, "user who may join it [the caller]");
  attach_app->add_option("--group", up_options.group, "group of it [the owner's]");
  attach_app->add_option("--mode", up_options.mode, "permission bits, octal [0600]");
  add_place(*attach_app, common);
  add_json(*attach_app, common);

  CLI::App* status_app =
      app.add_subcommand("status", "all domains of all builds, and who uses them");
  status_app->add_option("name", common.name, "only this domain");
  add_place(*status_app, common);
  add_json(*status_app, common);

  std::vector<std::string> command;
  CLI::App* exec_app = add_command(
      app, "exec",
      "run a command as a process of a node (MCS_NODE is set), in a pid namespace of its own where "
      "permitted; what it leaves behind goes on running",
      common, &node);
  exec_app->add_option("command", command, "-- CMD ARG…")->required();

  bool keep_memory = false;
  CLI::App* crash_app = add_command(app, "crash",
                                    "end all processes of a node at once (those that exec started "
                                    "there and those that joined the "
                                    "domain from there), and lose its memory",
                                    common, &node);
  crash_app->add_flag("--keep-memory", keep_memory, "the memory outlives the node");
  add_json(*crash_app, common);

  CLI::App* freeze_app = add_command(app, "freeze", "stop all processes of a node", common, &node);
  add_json(*freeze_app, common);
  CLI::App* thaw_app = add_command(app, "thaw", "let them go on", common, &node);
  add_json(*thaw_app, common);

  std::optional<std::uint64_t> page;
  CLI::App* lose_app = add_command(
      app, "lose", "the memory of a node stops answering: loads and stores raise SIGBUS", common,
      &node);
  lose_app->add_option("--page", page,
                       "only from this page of 4096 bytes on (a file cannot lose one "
                       "in its middle; see damage --zero-page)");
  add_json(*lose_app, common);

  CLI::App* restore_app = add_command(
      app, "restore", "the memory of a node comes back, empty, as a new incarnation; what was lost stays "
      "lost, and processes that use the domain map it by themselves",
      common, &node);
  add_json(*restore_app, common);

  DamageOptions damage_options;
  CLI::App* damage_app =
      add_command(app, "damage", "change bytes of a node's memory", common, &node);
  auto* random_option =
      damage_app->add_option("--random", damage_options.random, "this many bytes");
  damage_app->add_option("--seed", damage_options.seed, "of the random places [drawn, printed]");
  auto* offset_option = damage_app->add_option("--offset", damage_options.offset,
                                               "the byte at this offset of the segment");
  auto* zero_option = damage_app->add_option("--zero-page", damage_options.zero_page,
                                             "this page of 4096 bytes reads as zeros");
  damage_app
      ->add_option("--where", damage_options.where,
                   "random bytes of: all (but the header), header, metadata, payload")
      ->check(CLI::IsMember({"all", "header", "metadata", "payload"}))
      ->capture_default_str();
  add_json(*damage_app, common);

  DownOptions down_options;
  CLI::App* down_app =
      add_command(app, "down", "remove a domain and end its agents", common, nullptr);
  down_app->add_flag("--force", down_options.force,
                     "also if servers use it, or commands of exec still run (they are ended)");
  down_app->add_option("--layout", down_options.layout, "of another build, as status shows it");
  add_json(*down_app, common);

  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A subcommand");
    if (damage_app->parsed() &&
        random_option->count() + offset_option->count() + zero_option->count() != 1) {
      throw CLI::ValidationError("damage", "give one of --random N, --offset O and --zero-page N");
    }
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return fail_with(
        {mcs::ErrorCode::kInvalidArgument, std::string(error.what()) + "; see --help"});
  }
  for (CLI::App* chosen : app.get_subcommands()) {
    if (chosen->get_option_no_throw("--json") != nullptr && chosen->count("--json") != 0 &&
        common.json.empty()) {
      common.json = "-";
    }
  }
  try {
    if (up_app->parsed()) return up(common, up_options);
    if (attach_app->parsed()) return attach(common, up_options);
    if (status_app->parsed()) return status(common);
    if (exec_app->parsed()) return exec(common, node, command);
    if (crash_app->parsed()) return crash(common, node, keep_memory);
    if (freeze_app->parsed()) return freeze(common, node);
    if (thaw_app->parsed()) return thaw(common, node);
    if (lose_app->parsed()) return lose(common, node, page);
    if (restore_app->parsed()) return restore(common, node);
    if (damage_app->parsed()) return damage(common, node, damage_options);
    return down(common, down_options);
  } catch (const std::exception& error) {
    return fail_with({mcs::ErrorCode::kSystem, error.what()});
  }
}
