// Opens an OpenVINO bundle without Python: signature, hashes, golden vectors, ready; or a refusal and exit status 2.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openvino/openvino.hpp>
using nlohmann::json;
using std::string;
using Files = std::map<string, string>;  // bytes by name, each file read once: what is hashed is what is loaded

void require(bool holds, const string& reason) {
    if (!holds) throw std::runtime_error("refused: " + reason);
}
Files read_all(const std::filesystem::path& folder) {
    Files files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
        require(!entry.is_symlink() && (entry.is_directory() || entry.is_regular_file()), "malformed: " + entry.path().string());
        if (entry.is_directory()) continue;
        std::ifstream stream(entry.path(), std::ios::binary);
        files[entry.path().lexically_relative(folder).generic_string()].assign(std::istreambuf_iterator<char>(stream), {});
    }
    return files;
}
string from_base64(const string& text) {
    string bytes(text.size() / 4 * 3, '\0');
    const int length = EVP_DecodeBlock((unsigned char*)&bytes[0], (const unsigned char*)text.data(), (int)text.size());
    require(length == (int)bytes.size(), "malformed: no base64");
    bytes.resize(bytes.size() - std::count(text.begin(), text.end(), '='));
    return bytes;
}
string sha256_hex(const string& data) {
    unsigned char digest[32];
    EVP_Digest(data.data(), data.size(), digest, nullptr, EVP_sha256(), nullptr);
    std::ostringstream hex;
    for (unsigned byte : digest) hex << std::hex << byte / 16 << byte % 16;
    return hex.str();
}
// OpenSSF Model Signing v1.0: a DSSE envelope, signed by ECDSA P-256, around the SHA-256 of every file but itself.
void check_signature(const Files& files, const char* key_path) {
    require(files.count("model.sig"), "unsigned");
    const json envelope = json::parse(files.at("model.sig"))["dsseEnvelope"];
    const string payload = from_base64(envelope["payload"]), signature = from_base64(envelope["signatures"][0]["sig"]);
    const string said = "DSSEv1 28 application/vnd.in-toto+json " + std::to_string(payload.size()) + " " + payload;
    FILE* file = fopen(key_path, "r");
    EVP_PKEY* key = file ? PEM_read_PUBKEY(file, nullptr, nullptr, nullptr) : nullptr;
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    require(key && EVP_DigestVerifyInit(context, nullptr, EVP_sha256(), nullptr, key) == 1, "unreadable: no public key");
    require(EVP_DigestVerify(context, (const unsigned char*)signature.data(), signature.size(),
                             (const unsigned char*)said.data(), said.size()) == 1, "untrusted");
    Files wanted, found;
    const json statement = json::parse(payload);
    for (const json& item : statement["predicate"]["resources"]) wanted[item["name"]] = item["digest"];
    for (const auto& [name, data] : files)
        if (name != "model.sig") found[name] = sha256_hex(data);
    require(wanted == found, "tampered");
}
ov::Tensor tensor_of(const string& npy) {  // float32, rows first
    const size_t start = 10 + (unsigned char)npy.at(8) + 256 * (unsigned char)npy.at(9);
    const string header = npy.substr(10, start - 10), open = header.substr(header.find('(') + 1);
    require(header.find("'<f4'") != string::npos && header.find("False") != string::npos, "malformed: no float32");
    string sizes = open.substr(0, open.find(')'));
    std::replace(sizes.begin(), sizes.end(), ',', ' ');
    std::istringstream stream(sizes);
    ov::Tensor tensor(ov::element::f32, ov::Shape(std::istream_iterator<size_t>(stream), {}));
    require(npy.size() - start == tensor.get_byte_size(), "malformed: an array's size");
    std::memcpy(tensor.data(), npy.data() + start, tensor.get_byte_size());
    return tensor;
}
double distance(const ov::Tensor& found, const ov::Tensor& golden) {  // relative L2; infinite for another shape
    if (found.get_shape() != golden.get_shape()) return INFINITY;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < golden.get_size(); ++i) {
        difference += std::pow((double)found.data<float>()[i] - golden.data<float>()[i], 2);
        norm += std::pow((double)golden.data<float>()[i], 2);
    }
    return std::sqrt(difference / norm);
}
int main(int, char** argv) try {
    Files files = read_all(argv[1]);
    check_signature(files, argv[2]);
    const json manifest = json::parse(files.at("bundle.json")), session = manifest["artifact"]["session"];
    require(manifest["target"] == "openvino", "incompatible: it is for " + manifest["target"].get<string>());
    const string entry = "artifact/" + session["entry"].get<string>();
    string& weights = files.at(entry.substr(0, entry.rfind('.')) + ".bin");
    ov::Core core;
    auto model = core.read_model(files.at(entry), ov::Tensor(ov::element::u8, {weights.size()}, &weights[0]));
    ov::AnyMap settings{{"INFERENCE_PRECISION_HINT", "f32"}, {"PERFORMANCE_HINT", "LATENCY"}};
    for (const auto& [name, value] : session["settings"].items()) settings[name] = value.get<string>();
    auto request = core.compile_model(model, "CPU", settings).create_infer_request();
    double worst = 0;
    for (const json& golden : manifest["golden"]["cases"]) {
        for (const auto& [name, file] : golden["inputs"].items()) request.set_tensor(name, tensor_of(files.at(file)));
        request.infer();
        for (const auto& [name, file] : golden["outputs"].items()) {
            const double found = distance(request.get_tensor(name), tensor_of(files.at(file)));
            require(found <= manifest["golden"]["tolerance"][name]["relative_l2"], "wrong_answer: case " + golden["id"].get<string>());
            worst = std::max(worst, found);
        }
    }
    std::cout << "ready: " << manifest["name"] << " release " << manifest["release"] << ", worst golden distance " << worst << "\n";
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
}
