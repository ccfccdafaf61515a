#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/test_support.h"

namespace lathe {
namespace {

using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::string file_bytes(const std::string& header, std::size_t data_bytes) {
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, 'x');
}

TensorView view_of(std::vector<float>& values, std::initializer_list<std::int64_t> shape) {
  return TensorView::contiguous(values.data(), DType::f32, shape);
}

TEST(Safetensors, WritesTheseBytes) {
  const TemporaryFolder folder;
  std::vector<float> a{1.0F, -2.0F};
  std::vector<std::int64_t> b{7};
  const std::vector<NamedTensor> tensors{{"a", view_of(a, {2, 1})},
                                         {"b\"", TensorView::contiguous(b.data(), DType::i64, {})}};
  write_safetensors(folder / "t", tensors);
  std::string header = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                       R"("b\"":{"dtype":"I64","shape":[],"data_offsets":[8,16]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::string data("\x00\x00\x80\x3f\x00\x00\x00\xc0\x07\x00\x00\x00\x00\x00\x00\x00", 16);
  EXPECT_EQ(read_bytes(folder / "t"), file_bytes(header, 0) + data);
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  std::vector<float> values(1000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  std::vector<std::int32_t> ids{-1, 2, std::numeric_limits<std::int32_t>::min()};
  const auto matrix = view_of(values, {10, 20, 5});
  const std::vector<NamedTensor> tensors{{"slice", matrix.slice(1, 3, 7)},
                                         {"empty", matrix.slice(0, 0, 0)},
                                         {"ids", TensorView::contiguous(ids.data(), DType::i32, {3})}};
  write_safetensors(folder / "t", tensors);

  const SafetensorsFile file(folder / "t");
  ASSERT_EQ(file.tensors().size(), 3U);
  ASSERT_NE(file.find("slice"), nullptr);
  EXPECT_EQ(file.find("slice")->shape, (std::vector<std::int64_t>{10, 7, 5}));
  EXPECT_EQ(file.find("slice")->dtype, "F32");
  EXPECT_EQ(file.find("none"), nullptr);
  std::vector<float> out(1000, kNaN);
  file.read_into("slice", view_of(out, {10, 20, 5}).slice(1, 3, 7));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t row = i / 5 % 20;
    if (row >= 3 && row < 10)
      EXPECT_EQ(out[i], values[i]) << i;
    else
      EXPECT_TRUE(std::isnan(out[i])) << i;
  }
  std::vector<std::int32_t> ids_out(3);
  file.read_into("ids", TensorView::contiguous(ids_out.data(), DType::i32, {3}));
  EXPECT_EQ(ids_out, ids);
  file.read_into("empty", view_of(out, {0, 20, 5}));
}

TEST(Safetensors, ConvertsWhenWritingAndReading) {
  const TemporaryFolder folder;
  const std::size_t count = 300'001;  // more than one buffer of the writer
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = std::cos(static_cast<float>(i));
  const auto size = static_cast<std::int64_t>(count);
  SafetensorsWriter writer(folder / "t", {{"x", DType::bf16, {size}}, {"y", DType::f64, {1, size}}});
  writer.write(view_of(values, {size}));
  writer.write(view_of(values, {1, size}));
  writer.finish();

  const SafetensorsFile file(folder / "t");
  EXPECT_EQ(file.find("x")->bytes, 2 * count);
  std::vector<float> x(count, kNaN);
  std::vector<float> y(count, kNaN);
  file.read_into("x", view_of(x, {size}));
  file.read_into("y", view_of(y, {1, size}));
  for (std::size_t i = 0; i < count; ++i) {
    ASSERT_EQ(x[i], static_cast<float>(bf16(values[i]))) << i;
    ASSERT_EQ(y[i], values[i]) << i;
  }
}

TEST(Safetensors, RefusesToReadWhatDoesNotFit) {
  const TemporaryFolder folder;
  const std::string path = (folder / "t").string();
  write_bytes(path, file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                               R"("h":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},)"
                               R"("i":{"dtype":"I32","shape":[1],"data_offsets":[12,16]}})",
                               16));
  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensors().size(), 3U);
  std::vector<float> out(4, 5.0F);
  EXPECT_EQ(message_of([&] { file.read_into("h", view_of(out, {2})); }),
            path + ": tensor h is F16, which is not supported (allowed: F64, F32, BF16, I64, I32)");
  EXPECT_EQ(message_of([&] {
              file.read_into("a", view_of(out, {2, 1}));
            }),
            path + ": tensor a has shape [2], expected [2, 1]");
  EXPECT_EQ(message_of([&] { file.read_into("i", view_of(out, {1})); }),
            path + ": tensor i is I32, which cannot be read as f32");
  EXPECT_EQ(message_of([&] { file.read_into("b", view_of(out, {2})); }), path + ": tensor b is missing");
  EXPECT_EQ(out, std::vector<float>(4, 5.0F));
}

TEST(Safetensors, AcceptsTensorsInAnyOrderOfTheHeader) {
  const TemporaryFolder folder;
  write_bytes(folder / "t", file_bytes("\n{ \"b\" : {\"shape\":[1],\"data_offsets\":[8,12],\"dtype\":\"F32\"},\t"
                                       R"("z":{"dtype":"F32","shape":[0,9],"data_offsets":[8,8]},)"
                                       R"("__metadata__":{"made,by":"a } \" tool"},)"
                                       R"("\u0061":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}   )",
                                       12));
  const SafetensorsFile file(folder / "t");
  ASSERT_EQ(file.tensors().size(), 3U);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[1].name, "z");
  EXPECT_EQ(file.tensors()[2].name, "b");
  EXPECT_EQ(file.bytes(file.tensors()[2]).size(), 4U);
}

struct Hostile {
  std::string name;
  std::string header;
  std::size_t data_bytes;
  std::string message;  // after the path
};

class SafetensorsHostile : public testing::TestWithParam<Hostile> {};

TEST_P(SafetensorsHostile, IsRefusedInOneLine) {
  const TemporaryFolder folder;
  const std::string path = (folder / "t").string();
  write_bytes(path, file_bytes(GetParam().header, GetParam().data_bytes));
  const std::string message = message_of([&] { SafetensorsFile file(path); });
  EXPECT_TRUE(message.starts_with(path + ": ")) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":)" + entry(dtype, shape, offsets) + "}";
}

std::vector<Hostile> hostile_headers() {
  const std::string good = entry("\"F32\"", "[2]", "[0,8]");
  return {
      {"NotJson", "<html>", 0, "header: not a JSON object: no '{' at byte 0"},
      {"Empty", "", 0, "header: not a JSON object"},
      {"List", "[1]", 0, "header: not a JSON object"},
      {"NoEnd", R"({"w":)" + good, 8, "header: not a JSON object: no '}'"},
      {"StringNoEnd", R"({"w)", 8, "a string without an end"},
      {"EscapeAtEnd", R"({"w\)", 8, "a string without an end"},
      {"MoreText", R"({"w":)" + good + "} x", 8, "more text after the JSON object"},
      {"ZeroBytePadding", R"({"w":)" + good + "}" + std::string(3, '\0'), 8, "more text after the JSON object"},
      {"NoComma", R"({"w":)" + good + R"("v":)" + good + "}", 8, "tensor w: not valid JSON"},
      {"DoubleComma", R"({"w":)" + good + ",,}", 8, "no '\"' at byte"},
      {"Brackets", R"({"w":]})", 0, "tensor w: not valid JSON"},
      {"BadEntry", R"({"w":{"dtype":F32}})", 8, "tensor w: not valid JSON"},
      {"EntryNotObject", R"({"w":3})", 8, "tensor w: header entry must be an object, found a whole number"},
      {"EntryMissing", R"({"w":})", 8, "tensor w: not valid JSON"},
      {"Twice", R"({"w":)" + good + R"(,"w":)" + entry("\"F32\"", "[1]", "[8,12]") + "}", 12,
       "tensor w stands twice in the header"},
      {"MetadataTwice", R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ stands twice"},
      {"MetadataNotObject", R"({"__metadata__":[]})", 0, "__metadata__: must be an object, found a list"},
      {"MetadataNotString", R"({"__metadata__":{"a":1}})", 0, "every value must be a string, found a whole number"},
      {"EmptyName", R"({"":)" + good + "}", 8, "an empty name"},
      {"NewlineName", R"({"a\nb":)" + good + "}", 8, "a name with the control character 0x0a"},
      {"BadUtf8Name", "{\"a\xff\":" + good + "}", 8, "not valid JSON"},
      {"LongName", "{\"" + std::string(5000, 'n') + "\":" + good + "}", 8, "a name of 5002 bytes, at most 1024"},
      {"LongEntry", R"({"w":{"shape":[)" + std::string(20000, ' ') + "]}}", 8, "at most 16384 are allowed"},
      {"NoDtype", R"({"w":{"shape":[2],"data_offsets":[0,8]}})", 8, "tensor w: dtype is missing"},
      {"NoShape", R"({"w":{"dtype":"F32","data_offsets":[0,8]}})", 8, "tensor w: shape is missing"},
      {"NoOffsets", R"({"w":{"dtype":"F32","shape":[2]}})", 8, "tensor w: data_offsets is missing"},
      {"UnknownField", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8, "unknown field \"x\""},
      {"FieldTwice", R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "stands twice"},
      {"UnknownDtype", one("\"F33\"", "[2]", "[0,8]"), 8, "tensor w: unknown dtype \"F33\""},
      {"DtypeNumber", one("32", "[2]", "[0,8]"), 8, "dtype must be a string, found a whole number"},
      {"ShapeNotList", one("\"F32\"", "2", "[0,8]"), 8, "shape must be a list of whole numbers, found a whole number"},
      {"ShapeNegative", one("\"F32\"", "[-2]", "[0,8]"), 8, "shape holds -2, negative numbers are not allowed"},
      {"ShapeFraction", one("\"F32\"", "[2.0]", "[0,8]"), 8, "shape must hold whole numbers below 2^63, found 2.0"},
      {"ShapeString", one("\"F32\"", "[\"2\"]", "[0,8]"), 8, "shape must hold whole numbers below 2^63, found \"2\""},
      {"ShapeProduct", one("\"F32\"", "[4294967296,4294967296]", "[0,8]"), 8, "more elements than fit in 64 bits"},
      {"ShapeBytes", one("\"F64\"", "[2305843009213693953]", "[0,8]"), 8, "more elements than fit in 64 bits"},
      {"ShapeWraps", one("\"F32\"", "[9223372036854775807,2,3]", "[0,8]"), 8, "more elements than fit in 64 bits"},
      {"ShapeTooLong", one("\"F32\"", "[3]", "[0,8]"), 8, "data_offsets give 8 bytes, but F32 [3] takes 12"},
      {"ShapeTooShort", one("\"F32\"", "[1]", "[0,8]"), 8, "data_offsets give 8 bytes, but F32 [1] takes 4"},
      {"HalfByte", one("\"F4\"", "[3]", "[0,1]"), 1, "takes 12 bits, no whole bytes"},
      {"OffsetsOne", one("\"F32\"", "[2]", "[8]"), 8, "data_offsets must hold 2 numbers, found 1"},
      {"OffsetsNegative", one("\"F32\"", "[2]", "[-8,0]"), 8, "data_offsets holds -8"},
      {"OffsetsReversed", one("\"F32\"", "[2]", "[8,0]"), 8, "data_offsets [8, 0] are not a range inside the file's 8"},
      {"OffsetsPastEnd", one("\"F32\"", "[2]", "[0,8]"), 7, "data_offsets [0, 8] are not a range inside the file's 7"},
      {"OffsetsNear63", one("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]"), 8,
       "are not a range inside"},
      {"OffsetsAbove63", one("\"F32\"", "[2]", "[9223372036854775808,9223372036854775816]"), 8, "below 2^63"},
      {"OffsetsAbove64", one("\"F32\"", "[2]", "[0,18446744073709551624]"), 8, "below 2^63"},
      {"Overlap", R"({"v":)" + entry("\"F32\"", "[2]", "[0,8]") + R"(,"w":)" + entry("\"F32\"", "[2]", "[4,12]") + "}",
       12, "tensors v and w overlap: 4 bytes are used twice"},
      {"SameBytes", R"({"v":)" + good + R"(,"w":)" + good + "}", 8, "tensors v and w overlap"},
      {"Hole", R"({"v":)" + good + R"(,"w":)" + entry("\"F32\"", "[1]", "[12,16]") + "}", 16,
       "4 bytes before tensor w belong to no tensor"},
      {"HoleAtStart", one("\"F32\"", "[1]", "[4,8]"), 8, "4 bytes before tensor w"},
      {"MoreData", R"({"w":)" + good + "}", 9, "the last 1 bytes belong to no tensor"},
      {"DataWithoutTensors", "{}", 5, "the last 5 bytes belong to no tensor"},
  };
}

INSTANTIATE_TEST_SUITE_P(Headers, SafetensorsHostile, testing::ValuesIn(hostile_headers()),
                         [](const auto& test_case) { return test_case.param.name; });

TEST(Safetensors, RefusesWrongLengths) {
  const TemporaryFolder folder;
  const std::string path = (folder / "t").string();
  const auto refusal = [&] { return message_of([&] { SafetensorsFile file(path); }); };
  EXPECT_EQ(refusal(), path + ": cannot be read: No such file or directory");
  write_bytes(path, "");
  EXPECT_EQ(refusal(), path + ": 0 bytes, a safetensors file has at least 8");
  write_bytes(path, "1234567");
  EXPECT_EQ(refusal(), path + ": 7 bytes, a safetensors file has at least 8");
  for (const std::uint64_t length : {std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    std::string bytes = file_bytes("{}", 0);
    std::memcpy(bytes.data(), &length, 8);
    write_bytes(path, bytes);
    EXPECT_EQ(refusal(), fmt::format("{}: header of {} bytes, at most 100000000 are allowed", path, length));
  }
  const std::string good = file_bytes(one("\"F32\"", "[2]", "[0,8]"), 8);
  for (std::size_t length = 0; length < good.size(); ++length) {
    write_bytes(path, std::string_view(good).substr(0, length));
    EXPECT_TRUE(refusal().starts_with(path + ": ")) << length;
  }
  write_bytes(path, good);
  EXPECT_EQ(refusal(), "nothing was thrown");
  EXPECT_EQ(message_of([&] { SafetensorsFile file(folder.path()); }), folder.path().string() + ": not a regular file");
}

TEST(Safetensors, RefusesALargeHostileHeaderInLittleMemory) {
  const TemporaryFolder folder;
  const auto peak_kilobytes = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  std::string list = "[0";
  while (list.size() < 20'000'000) list += ",0";
  write_bytes(folder / "t", file_bytes(R"({"w":)" + list + "]}", 0));
  write_bytes(folder / "m", file_bytes(R"({"__metadata__":)" + list + "]}", 0));
  const auto before = peak_kilobytes();
  EXPECT_NE(message_of([&] { SafetensorsFile file(folder / "t"); }).find("at most 16384"), std::string::npos);
  EXPECT_NE(message_of([&] { SafetensorsFile file(folder / "m"); }).find("at most 4194304"), std::string::npos);
  EXPECT_LT(peak_kilobytes() - before, 100'000);  // the pages of the files themselves, twice 20 MB
}

TEST(Safetensors, ChangedBytesNeverCrash) {
  const TemporaryFolder folder;
  const std::string good = file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  int refused = 0;
  for (std::size_t place = 0; place + 8 < good.size(); ++place)
    for (const char c : {'\0', '"', '9', '{', ']', '\xff'}) {
      std::string bad = good;
      bad[place] = c;
      if (bad == good) continue;
      write_bytes(folder / "t", bad);
      const std::string message = message_of([&] { SafetensorsFile file(folder / "t"); });
      if (message != "nothing was thrown") ++refused;
    }
  EXPECT_GT(refused, 250);  // another name for the tensor is accepted, little else
}

TEST(Safetensors, WriterHoldsToWhatWasAnnounced) {
  const TemporaryFolder folder;
  const std::string path = (folder / "t").string();
  std::vector<float> values(6, 1.0F);
  {
    SafetensorsWriter writer(path, {{"a", DType::f32, {2, 3}}, {"b", DType::f32, {1}}});
    EXPECT_EQ(message_of<Error>([&] {
                writer.write(view_of(values, {3, 2}));
              }),
              path + ": tensor a was announced as [2, 3], but is f32 [3, 2]");
    writer.write(view_of(values, {2, 3}));
    EXPECT_EQ(message_of<Error>([&] { writer.finish(); }), path + ": 1 of 2 tensors were written");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(message_of<Error>([&] {
              SafetensorsWriter writer(path, {{"a", DType::f32, {1}}, {"a", DType::f32, {1}}});
            }),
            path + ": two tensors are called a");
  EXPECT_EQ(message_of<Error>([&] { SafetensorsWriter writer(folder / "no/t", {}); }),
            (folder / "no/t").string() + ": cannot be written: No such file or directory");
}

}  // namespace
}  // namespace lathe
