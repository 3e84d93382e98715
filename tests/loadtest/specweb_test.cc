// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "loadtest/client/file_set.h"
#include "loadtest/harness/temp_dir.h"
#include "loadtest/specweb/content.h"
#include "loadtest/specweb/sampler.h"
#include "loadtest/specweb/specweb.h"

namespace mcs::loadtest {
namespace {

// Pearson's statistic of counts against probabilities. With k degrees of freedom it is k +- 4
// sqrt(2k) for all but one in ten thousand honest samples.
void expect_distribution(const std::map<size_t, uint64_t>& counts,
                         const std::map<size_t, double>& probabilities, uint64_t draws) {
  double statistic = 0;
  double degrees = -1;
  double rest_expected = 0;
  double rest_counted = 0;
  for (const auto& [value, probability] : probabilities) {
    const double expected = probability * static_cast<double>(draws);
    const auto it = counts.find(value);
    const double counted = it == counts.end() ? 0 : static_cast<double>(it->second);
    if (expected < 10) {
      rest_expected += expected;
      rest_counted += counted;
      continue;
    }
    statistic += (counted - expected) * (counted - expected) / expected;
    ++degrees;
  }
  if (rest_expected > 0) {
    statistic += (rest_counted - rest_expected) * (rest_counted - rest_expected) / rest_expected;
    ++degrees;
  }
  EXPECT_LT(statistic, degrees + 5 * std::sqrt(2 * degrees) + 10);
  for (const auto& entry : counts) {
    EXPECT_TRUE(probabilities.count(entry.first)) << entry.first << " must not be drawn";
  }
}

TEST(SpecwebSet, HasTheSizesOfTheDefinition) {
  EXPECT_EQ(SpecwebSet::directories_for(0), 25);
  EXPECT_EQ(SpecwebSet::directories_for(1), 25);
  EXPECT_EQ(SpecwebSet::directories_for(20), 38);
  EXPECT_EQ(SpecwebSet::directories_for(100), 90);
  EXPECT_EQ(SpecwebSet::directories_for(1000), 680);
  const uint64_t class0[] = {102, 204, 307, 409, 512, 614, 716, 819, 921};
  for (int n = 0; n < 9; ++n) {
    EXPECT_EQ(SpecwebSet::file_size(0, n), class0[n]);
    EXPECT_EQ(SpecwebSet::file_size(1, n), 1024u * static_cast<unsigned>(n + 1));
    EXPECT_EQ(SpecwebSet::file_size(2, n), 10240u * static_cast<unsigned>(n + 1));
    EXPECT_EQ(SpecwebSet::file_size(3, n), 102400u * static_cast<unsigned>(n + 1));
  }
  EXPECT_EQ(SpecwebSet::file_path(7, 2, 4), "dir00007/class2_4");
  const SpecwebSet set(0, 1);
  EXPECT_EQ(set.size(), 900u);
  EXPECT_EQ(set.path(0), "dir00000/class0_0");
  EXPECT_EQ(set.path(899), "dir00024/class3_8");
  EXPECT_EQ(set.file_size(899), 921'600u);
  EXPECT_EQ(set.total_bytes(), 25u * (4604u + 46'080u + 460'800u + 4'608'000u));
}

TEST(SpecwebSet, WritesWhatACheckerExpects) {
  const TempDir root;
  const SpecwebSet set(0, 77);
  const auto written = set.write_to(root.path());
  ASSERT_TRUE(written) << written.error().message;
  for (size_t file = 0; file < set.size(); file += 7) {
    const auto text = read_file(root.path() / set.path(file));
    ASSERT_TRUE(text) << text.error().message;
    ASSERT_EQ(text->size(), set.file_size(file));
    EXPECT_EQ(first_wrong_byte(set.key(file), 0, std::as_bytes(std::span(*text))), std::nullopt);
  }
  struct stat status = {};
  ASSERT_EQ(stat((root.path() / set.path(3)).c_str(), &status), 0);
  EXPECT_EQ(status.st_mtime, SpecwebSet::kModified);
}

TEST(Content, IsTheSameInPieces) {
  const uint64_t key = content_key(1, "a/b");
  std::vector<std::byte> whole(1000);
  fill_content(key, 0, whole);
  for (size_t offset = 0; offset < 40; ++offset) {
    for (const size_t length : {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{61}}) {
      std::vector<std::byte> piece(length);
      fill_content(key, offset, piece);
      EXPECT_TRUE(
          std::equal(piece.begin(), piece.end(), whole.begin() + static_cast<ptrdiff_t>(offset)));
      EXPECT_EQ(first_wrong_byte(key, offset, piece), std::nullopt);
    }
  }
}

TEST(Content, EveryWrongByteIsFoundWhereItIs) {
  const uint64_t key = content_key(1, "a/b");
  std::vector<std::byte> bytes(100);
  for (size_t at = 0; at < bytes.size(); ++at) {
    fill_content(key, 13, bytes);
    bytes[at] ^= std::byte{0x10};
    EXPECT_EQ(first_wrong_byte(key, 13, bytes), at);
  }
}

TEST(Content, DiffersByPathAndSeed) {
  std::set<std::vector<std::byte>> seen;
  for (const uint64_t seed : {1u, 2u}) {
    for (const char* path : {"dir00000/class0_0", "dir00000/class0_1", "dir00001/class0_0"}) {
      std::vector<std::byte> bytes(16);
      fill_content(content_key(seed, path), 0, bytes);
      seen.insert(bytes);
    }
  }
  EXPECT_EQ(seen.size(), 6u);
}

TEST(WeightedSampler, FollowsItsWeights) {
  const std::vector<double> weights = {5, 0, 1, 100, 0.5, 20};
  const WeightedSampler sampler(weights);
  Random random(20260101);
  constexpr uint64_t kDraws = 200'000;
  std::map<size_t, uint64_t> counts;
  for (uint64_t i = 0; i < kDraws; ++i) {
    ++counts[sampler(random)];
  }
  std::map<size_t, double> probabilities;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) {
      probabilities[i] = weights[i] / 126.5;
    }
  }
  expect_distribution(counts, probabilities, kDraws);
}

TEST(WeightedSampler, RefusesNothingToDraw) {
  EXPECT_THROW(WeightedSampler(std::vector<double>{}), std::invalid_argument);
  EXPECT_THROW(WeightedSampler(std::vector<double>{0, 0}), std::invalid_argument);
}

TEST(SpecwebSampler, FollowsTheDefinition) {
  constexpr int kDirectories = 30;
  const SpecwebSampler sampler(kDirectories);
  Random random(99);
  constexpr uint64_t kDraws = 2'000'000;
  std::map<size_t, uint64_t> directories;
  std::map<size_t, uint64_t> classes;
  std::map<size_t, uint64_t> files;
  std::map<size_t, uint64_t> all;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const size_t file = sampler(random);
    ++directories[file / 36];
    ++classes[file % 36 / 9];
    ++files[file % 9];
    ++all[file];
  }
  double directory_sum = 0;
  for (int d = 1; d <= kDirectories; ++d) {
    directory_sum += 1.0 / d;
  }
  double rank_sum = 0;
  for (int r = 1; r <= 9; ++r) {
    rank_sum += 1.0 / r;
  }
  const size_t order[] = {4, 3, 5, 2, 6, 1, 7, 8, 0};
  const double class_probability[] = {.35, .50, .14, .01};
  std::map<size_t, double> p_directory;
  std::map<size_t, double> p_class;
  std::map<size_t, double> p_file;
  std::map<size_t, double> p_all;
  for (size_t d = 0; d < kDirectories; ++d) {
    p_directory[d] = 1.0 / static_cast<double>(d + 1) / directory_sum;
    for (size_t c = 0; c < 4; ++c) {
      p_class[c] = class_probability[c];
      for (size_t r = 0; r < 9; ++r) {
        p_file[order[r]] = 1.0 / static_cast<double>(r + 1) / rank_sum;
        p_all[d * 36 + c * 9 + order[r]] = p_directory[d] * p_class[c] * p_file[order[r]];
      }
    }
  }
  expect_distribution(directories, p_directory, kDraws);
  expect_distribution(classes, p_class, kDraws);
  expect_distribution(files, p_file, kDraws);
  expect_distribution(all, p_all, kDraws);
}

TEST(RequestStream, ZipfDealsRanksToAllFilesOfItsRange) {
  const auto stream = zipf_stream(10, 50, 1, 3);
  Random random(4);
  std::map<size_t, uint64_t> counts;
  constexpr uint64_t kDraws = 200'000;
  for (uint64_t i = 0; i < kDraws; ++i) {
    ++counts[stream->next(random)];
  }
  ASSERT_EQ(counts.size(), 50u);
  EXPECT_EQ(counts.begin()->first, 10u);
  EXPECT_EQ(counts.rbegin()->first, 59u);
  std::vector<uint64_t> sorted;
  for (const auto& entry : counts) {
    sorted.push_back(entry.second);
  }
  std::sort(sorted.rbegin(), sorted.rend());
  double sum = 0;
  for (int r = 1; r <= 50; ++r) {
    sum += 1.0 / r;
  }
  EXPECT_NEAR(static_cast<double>(sorted[0]), kDraws / sum, 5 * std::sqrt(kDraws / sum));
}

TEST(RequestStream, MixesByWeight) {
  std::vector<WeightedStream> parts;
  parts.push_back({1, uniform_stream(0, 10)});
  parts.push_back({3, uniform_stream(10, 10)});
  const auto stream = mixed_stream(std::move(parts));
  Random random(5);
  std::map<size_t, uint64_t> counts;
  constexpr uint64_t kDraws = 100'000;
  for (uint64_t i = 0; i < kDraws; ++i) {
    ++counts[stream->next(random) / 10];
  }
  expect_distribution(counts, {{0, .25}, {1, .75}}, kDraws);
}

TEST(FileSet, FindsFilesAndTheirDifferences) {
  const TempDir root;
  ASSERT_TRUE(write_file(root.path() / "b b" / "\xc3\xa4.html", "0123456789"));
  ASSERT_TRUE(write_file(root.path() / "a", ""));
  std::filesystem::create_symlink("a", root.path() / "link");
  FileSet files;
  const auto added = files.add_directory(root.path(), "/x/");
  ASSERT_TRUE(added) << added.error().message;
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].url_path, "/x/a");
  EXPECT_EQ(files[0].size, 0u);
  EXPECT_EQ(files[1].url_path, "/x/b%20b/%C3%A4.html");
  const std::string good = "3456";
  const std::string bad = "34X6";
  EXPECT_EQ(files.first_difference(1, 3, std::as_bytes(std::span(good))), std::nullopt);
  EXPECT_EQ(files.first_difference(1, 3, std::as_bytes(std::span(bad))), 2u);
}

}  // namespace
}  // namespace mcs::loadtest
