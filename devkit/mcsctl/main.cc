// SPDX-License-Identifier: Apache-2.0
// mcsctl: look into a live domain, check it, and purge from it.
#include <CLI/CLI.hpp>
#include <exception>

#include "devkit/mcsctl/command.h"

namespace {

void add_common(CLI::App& app, mcs::ctl::Common& common) {
  app.add_option("name", common.name, "name of the domain")->required();
  app.add_option("--directory", common.directory, "directory that holds domains")
      ->capture_default_str();
  app.add_option("--json", common.json,
                 "write the result as JSON to this file; - (or no file) is "
                 "standard output, without the text")
      ->expected(0, 1)
      ->type_name("FILE");
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mcs::ctl;
  CLI::App app{
      "Looks into a domain while servers use it.\n"
      "Exit status: 0 done; 1 verify found something wrong; 2 it could not be done."};
  app.require_subcommand(0, 1);
  Common common;
  KeysOptions keys_options;
  VerifyCommand verify_options;
  bool no_bodies = false;
  bool no_recovery = false;

  CLI::App* status_app = app.add_subcommand("status", "nodes, space, instances and statistics");
  add_common(*status_app, common);

  CLI::App* verify_app = app.add_subcommand(
      "verify", "check every chain, entry, unit of space, pin, lease and lock; name what is wrong");
  add_common(*verify_app, common);
  verify_app->add_flag("--no-bodies", no_bodies, "leave out the bodies' checksums");
  verify_app->add_flag("--no-recovery", no_recovery,
                       "do not recover the dead first if nobody is alive to do it");
  verify_app
      ->add_option("--rechecks", verify_options.rechecks,
                   "how often a suspicion must be confirmed while others go on working")
      ->capture_default_str();

  CLI::App* keys_app = app.add_subcommand("keys", "what is stored: size, age, place, pins, key");
  add_common(*keys_app, common);
  keys_app->add_option("--prefix", keys_options.prefix, "only keys that begin with this");
  keys_app->add_option("--limit", keys_options.limit, "how many at most")->capture_default_str();

  PurgeOptions purge_options;
  CLI::App* purge_app = app.add_subcommand("purge",
                                           "remove what is stored, in all servers of the domain; "
                                           "what is being fetched now is not stored");
  add_common(*purge_app, common);
  CLI::Option_group* what = purge_app->add_option_group("what", "exactly one of");
  what->add_option("--key", purge_options.key, "what is stored under this key, as 'keys' shows it");
  what->add_option("--path", purge_options.path, "this path and query of a site, all variants");
  what->add_option("--prefix", purge_options.prefix, "paths that begin with this");
  what->add_option("--wildcard", purge_options.wildcard, "paths that match; * is anything");
  what->add_option("--tag", purge_options.tag, "what Surrogate-Key or xkey tagged so");
  what->add_flag("--all", purge_options.all, "everything in the domain");
  what->require_option(1);
  purge_app->add_option("--base", purge_options.base, "the site's key base");
  purge_app->add_option("--host", purge_options.host, "host of a proxied site without a key base");
  purge_app->add_option("--scheme", purge_options.scheme, "of that host")->capture_default_str();
  purge_app->add_flag("--soft", purge_options.soft, "mark as stale instead of removing");

  CLI::App* events_app =
      app.add_subcommand("events", "history of recoveries, with their phases (times in us)");
  add_common(*events_app, common);

  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A subcommand");
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return fail_with(
        {mcs::ErrorCode::kInvalidArgument, std::string(error.what()) + "; see --help"});
  }
  for (CLI::App* chosen : app.get_subcommands()) {
    if (chosen->count("--json") != 0 && common.json.empty()) common.json = "-";
  }
  try {
    if (status_app->parsed()) return status(common);
    if (keys_app->parsed()) return keys(common, keys_options);
    if (events_app->parsed()) return events(common);
    if (purge_app->parsed()) return purge(common, purge_options);
    verify_options.bodies = !no_bodies;
    verify_options.recover = !no_recovery;
    return verify(common, verify_options);
  } catch (const std::exception& error) {
    return fail_with({mcs::ErrorCode::kSystem, error.what()});
  }
}
